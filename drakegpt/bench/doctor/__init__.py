"""Is it my machine? Facts about a machine, and checks that it computes right."""

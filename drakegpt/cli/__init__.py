"""The command line: parse, call one function, render. Nothing else in the package prints."""

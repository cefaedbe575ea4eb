"""A model of one's own in one file: a class and its registration."""

from torch import Tensor, nn

from drakegpt.config import ModelConfig
from drakegpt.models.ladder import TransformerBlock
from drakegpt.models.layers import LanguageModel, Linear, TokenAndPositionEmbedding
from drakegpt.models.registry import register


class GatedTransformerLM(LanguageModel):
    """TransformerLM whose final features are gated, each by itself."""

    idea = "let each number decide how much of it counts"
    has_residuals = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = TokenAndPositionEmbedding(config)
        self.blocks = nn.Sequential(*(TransformerBlock(config) for _ in range(config.num_layers)))
        self.gate = Linear(config.embedding_dim, config.embedding_dim)
        self.head = Linear(config.embedding_dim, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks(self.embedding(tokens))
        return self.head(x * self.gate(x).sigmoid())


register(GatedTransformerLM, on_ladder=True)

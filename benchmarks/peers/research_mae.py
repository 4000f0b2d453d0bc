"""A masked autoencoder in plain PyTorch, the way research code writes it: timm's blocks, all patches embedded first.

Nothing here is AudioPG's. Where timm is installed its own block is used, otherwise the same one written out.
"""

import torch
from torch import Tensor, nn

try:
    from timm.models.vision_transformer import Block
except ModuleNotFoundError:

    class Attention(nn.Module):
        """Self-attention as in timm: one projection for all three, PyTorch's fused kernel."""

        def __init__(self, dim: int, num_heads: int) -> None:
            super().__init__()
            self.num_heads = num_heads
            self.qkv = nn.Linear(dim, 3 * dim)
            self.proj = nn.Linear(dim, dim)

        def forward(self, x: Tensor) -> Tensor:
            """Mix tokens `(batch, tokens, dim)`."""
            batch, tokens, dim = x.shape
            qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
            return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))

    class Block(nn.Module):
        """Pre-norm Transformer block as in timm."""

        def __init__(self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, norm_layer: type) -> None:
            super().__init__()
            self.norm1, self.norm2 = norm_layer(dim), norm_layer(dim)
            self.attn = Attention(dim, num_heads)
            inner = int(dim * mlp_ratio)
            self.mlp = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))

        def forward(self, x: Tensor) -> Tensor:
            """Transform tokens `(batch, tokens, dim)`."""
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))


class ResearchMAE(nn.Module):
    """The masked autoencoder of He et al. as its authors wrote it, for spectrograms of one size.

    Args:
        num_patches: Patches of a spectrogram.
        dim: Width of the encoder.
        depth: Blocks of the encoder.
        heads: Heads of the encoder.
        decoder_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_heads: Heads of the decoder.
        mask_ratio: Share of the patches that are hidden.
    """

    def __init__(
        self,
        num_patches: int,
        dim: int,
        depth: int,
        heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        mask_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        self.patch_embed = nn.Conv2d(1, dim, kernel_size=16, stride=16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, num_patches + 1, dim), requires_grad=False)
        blocks = {"mlp_ratio": 4.0, "qkv_bias": True, "norm_layer": nn.LayerNorm}
        self.blocks = nn.ModuleList(Block(dim, heads, **blocks) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.decoder_embed = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(0.02 * torch.randn(1, num_patches + 1, decoder_dim), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(Block(decoder_dim, decoder_heads, **blocks) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, 256)

    def random_masking(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep some of the embedded patches `(batch, patches, dim)`."""
        batch, patches, dim = x.shape
        kept = int(patches * (1 - self.mask_ratio))
        ids_shuffle = torch.rand(batch, patches, device=x.device).argsort(dim=1)
        ids_restore = ids_shuffle.argsort(dim=1)
        x = torch.gather(x, 1, ids_shuffle[:, :kept, None].repeat(1, 1, dim))
        mask = torch.ones(batch, patches, device=x.device)
        mask[:, :kept] = 0
        return x, torch.gather(mask, 1, ids_restore), ids_restore

    def forward(self, spectrograms: Tensor) -> Tensor:
        """The loss of spectrograms `(batch, 1, frames, 128)`, of all patches and then masked."""
        x = self.patch_embed(spectrograms).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        x, mask, ids_restore = self.random_masking(x)
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        x = torch.cat((cls_token, x), dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        mask_tokens = self.mask_token.repeat(x.shape[0], ids_restore.shape[1] + 1 - x.shape[1], 1)
        patches = torch.cat([x[:, 1:], mask_tokens], dim=1)
        patches = torch.gather(patches, 1, ids_restore[:, :, None].repeat(1, 1, x.shape[2]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        target = nn.functional.unfold(spectrograms, 16, stride=16).transpose(1, 2)
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        loss = (((predicted - (target - mean) / (variance + 1e-6) ** 0.5) ** 2).mean(dim=-1) * mask).sum() / mask.sum()
        return loss

"""AudioPG: a masked autoencoder over log-mel spectrograms, and the encoder and classifier that come out of it.

A spectrogram is cut into patches. In pre-training the encoder sees a quarter of them, a small decoder redraws
the rest (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners"; AudioPG, section 4). Afterwards the
encoder sees every patch, and the mean of its patch tokens describes the clip.

Shapes, for 10.24 s at 16 kHz:

    input_values (batch, 1024 frames, 128 mel bins)
      -> patches (batch, 64 x 8 = 512, 16 x 16 = 256)      time outer, mel inner
      -> visible patches (batch, 128, 256)                 chosen before they are embedded
      -> hidden states (batch, 1 + 128, 768)               one class token in front
      -> decoder logits (batch, 512, 256)

With `config.num_channels` above 1 it takes images instead, `(batch, channels, columns, rows from the lowest up)`: they
lie as spectrograms do, their columns where frames are, so that what is learnt of images needs no turning for audio.

Tensors of ones and zeros called `attention_mask` count frames; boolean tensors called `valid` count patches or tokens.
A patch is valid when any of its frames is real. Only valid patches are ever seen, attended to, pooled or scored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_audiopg import AudioPGConfig
from .embedding_audiopg import (
    AudioPGFrameEmbeddings,
    EmbeddingOptions,
    frame_embeddings,
    pool_mel_patches,
    pool_moments,
    spectrogram_embeddings,
)
from .feature_extraction_audiopg import ArrayLike, AudioPGFeatureExtractor
from .losses_audiopg import classification_loss, reconstruction_loss
from .patches_audiopg import (
    content_noise,
    invert_permutation,
    patchify,
    random_masking,
    sincos_positions,
    valid_patches,
)

if TYPE_CHECKING:  # transformers follows such a line when it saves a model: so the pipeline travels with every one
    from .pipeline_audiopg import AudioPGFeatureExtractionPipeline  # noqa: F401

logger = logging.get_logger(__name__)


@dataclass
class AudioPGModelOutput(ModelOutput):
    """What the encoder returns.

    Args:
        last_hidden_state: Tokens after the final norm, shape `(batch, 1 + visible patches, hidden_size)`. The class
            token comes first; then every patch in order, or, with masking, the visible ones by rising noise.
        pooler_output: Mean of the valid patch tokens, shape `(batch, hidden_size)`.
        mask: 1 where a patch is masked, shape `(batch, patches)`; 0 where it is visible, and at padding.
        ids_restore: Rank of each patch in the order of the noise, shape `(batch, patches)`: visible patch `i` is patch
            token `ids_restore[i]`.
        hidden_states: Input of the first block and output of each block, before the final norm, when asked for.
        attentions: Attention weights of each block, `(batch, heads, tokens, tokens)`, when asked for.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class AudioPGForPreTrainingOutput(ModelOutput):
    """What the masked autoencoder returns.

    Args:
        loss: Mean squared error over the masked patches, a float32 scalar; None when nothing was masked.
        logits: Predicted patches, shape `(batch, patches, config.patch_values)`, standardised if `norm_pix_loss` is
            set.
        mask: 1 where a patch was masked and is scored, shape `(batch, patches)`.
        ids_restore: Rank of each patch in the order of the noise, shape `(batch, patches)`.
        hidden_states: Hidden states of the encoder, when asked for.
        attentions: Attention weights of the encoder, when asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    mask: Tensor | None = None
    ids_restore: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def _check_inputs(
    config: AudioPGConfig, input_values: Tensor, attention_mask: Tensor | None, noise: Tensor | None
) -> None:
    shape = tuple(input_values.shape)
    channels = config.num_channels
    if channels > 1:
        if len(shape) != 4 or (shape[1], shape[3]) != (channels, config.num_mel_bins):
            raise ValueError(
                f"`input_values` of this model of images must have shape (batch, {channels} channels, columns, "
                f"{config.num_mel_bins} rows), got {shape}: for audio, convert it with "
                "training/convert_checkpoint.py --to_audio."
            )
        shape = (shape[0], *shape[2:])
    elif len(shape) != 3 or shape[2] != config.num_mel_bins:
        raise ValueError(
            f"`input_values` must have shape (batch, frames, {config.num_mel_bins} mel bins), got {shape}: make "
            "them with the AudioPGFeatureExtractor of this checkpoint, which takes waveforms."
        )
    patch_frames, patch_bins = config.patch_shape
    if shape[1] == 0 or shape[1] % patch_frames:
        raise ValueError(
            f"The frames of `input_values` must be a multiple of the {patch_frames} of a patch, got {shape[1]}: the "
            "AudioPGFeatureExtractor of this checkpoint pads them so."
        )
    if attention_mask is not None and tuple(attention_mask.shape) != shape[:2]:
        raise ValueError(
            f"`attention_mask` must have one number per frame, shape {shape[:2]}, got "
            f"{tuple(attention_mask.shape)}: take the one that the AudioPGFeatureExtractor returns."
        )
    num_patches = shape[1] * shape[2] // (patch_frames * patch_bins)
    if noise is not None and tuple(noise.shape) != (shape[0], num_patches):
        raise ValueError(
            f"`noise` must have one number per patch, shape {(shape[0], num_patches)}, got {tuple(noise.shape)}: "
            "draw it with torch.rand in that shape."
        )


def _masked_mean(tokens: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return tokens.mean(dim=1)
    weights = valid.to(tokens.dtype)[..., None]
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _token_mask(config: AudioPGConfig, hidden_states: Tensor, valid: Tensor | None) -> Any:
    """Make the attention mask for a class token and patches, in the form that the attention implementation wants."""
    if valid is None:
        # Not left to `create_bidirectional_mask`: while compiling it writes out a mask of ones even when there is no
        # padding, and then the fast attention kernels are out of reach.
        return None
    class_token = valid.new_ones(valid.shape[0], 1)
    tokens_valid = torch.cat([class_token, valid], dim=1)
    return create_bidirectional_mask(config=config, inputs_embeds=hidden_states, attention_mask=tokens_valid)


class AudioPGEmbeddings(nn.Module):
    """Projects patches linearly, adds their positions and puts the class token in front."""

    def __init__(self, config: AudioPGConfig) -> None:
        super().__init__()
        # A convolution with its kernel as stride is a linear layer; written so, patches can be chosen beforehand.
        self.patch_embeddings = nn.Linear(config.patch_values, config.hidden_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Embed patches, `(batch, n, patch values)`, at positions that broadcast with `(batch, n, hidden_size)`."""
        dtype = self.cls_token.dtype  # of the residual stream: the parameters', under autocast too
        tokens = self.patch_embeddings(patches.to(dtype)).to(dtype) + positions.to(dtype)
        return torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out, for `attn_implementation="eager"`: the only one that returns its weights.

    Args:
        module: The attention layer; unused, part of the interface that all implementations share.
        query: Shape `(batch, heads, tokens, head width)`, like `key` and `value`.
        key: See `query`.
        value: See `query`.
        attention_mask: Added to the scores, broadcasts with `(batch, heads, tokens, tokens)`.
        scaling: Factor of the scores.
        kwargs: Settings of other implementations; unused.

    Returns:
        The mixed values, `(batch, tokens, heads, head width)`, and the weights, `(batch, heads, tokens, tokens)`.
    """
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).transpose(1, 2), weights


class AudioPGAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, config: AudioPGConfig, hidden_size: int, num_attention_heads: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = hidden_size // num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False  # read by the attention implementations
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: Tensor, attention_mask: Any = None) -> tuple[Tensor, Tensor | None]:
        """Mix tokens `(batch, tokens, hidden_size)`; the weights come along where the implementation has them."""
        batch, tokens, _ = hidden_states.shape
        # (B, T, 3D) -> (3, B, heads, T, head width)
        qkv = self.qkv(hidden_states).view(batch, tokens, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attention(self, query, key, value, attention_mask, scaling=self.scaling, dropout=0.0)
        return self.o_proj(mixed.reshape(batch, tokens, -1)), weights


class AudioPGMLP(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, config: AudioPGConfig, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform each token of `(batch, tokens, hidden_size)` by itself."""
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class AudioPGDropPath(nn.Module):
    """Stochastic depth: while training, drops a branch for whole clips and scales up that of the others in return."""

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate

    def forward(self, branch: Tensor) -> Tensor:
        """Keep each clip of `(batch, tokens, hidden_size)` with probability 1 - `drop_rate`."""
        if not self.training or self.drop_rate == 0:
            return branch
        keep_rate = 1 - self.drop_rate
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) < keep_rate
        return branch * (kept / keep_rate).to(branch.dtype)

    def extra_repr(self) -> str:
        """Show the rate when the model is printed."""
        return f"drop_rate={self.drop_rate:.3f}"


class AudioPGLayer(GradientCheckpointingLayer):
    """A pre-norm Transformer block: attention, then a feed-forward part, each added to its input."""

    def __init__(
        self,
        config: AudioPGConfig,
        hidden_size: int,
        num_attention_heads: int,
        intermediate_size: int,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = AudioPGAttention(config, hidden_size, num_attention_heads)
        self.layernorm_after = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = AudioPGMLP(config, hidden_size, intermediate_size)
        self.drop_path = AudioPGDropPath(drop_path_rate)

    def forward(self, hidden_states: Tensor, attention_mask: Any = None) -> Tensor:
        """Transform tokens `(batch, tokens, hidden_size)`."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), attention_mask)
        hidden_states = hidden_states + self.drop_path(attended)
        return hidden_states + self.drop_path(self.mlp(self.layernorm_after(hidden_states)))


class AudioPGDecoder(nn.Module):
    """Redraws every patch from the tokens of the visible ones."""

    def __init__(self, config: AudioPGConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_hidden_size
        self.decoder_embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(
            AudioPGLayer(config, width, config.decoder_num_attention_heads, config.decoder_intermediate_size)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder_pred = nn.Linear(width, config.patch_values)

    def forward(self, latent: Tensor, mask: Tensor, ids_restore: Tensor, valid: Tensor | None) -> Tensor:
        """Predict all patches.

        Args:
            latent: Encoder tokens, class token first, shape `(batch, 1 + visible patches, hidden_size)`.
            mask: 1 at masked patches, shape `(batch, patches)`.
            ids_restore: Rank of each patch in the order of the noise, shape `(batch, patches)`.
            valid: False at padded patches, shape `(batch, patches)`, or None.

        Returns:
            Predicted patches, shape `(batch, patches, patch values)`.
        """
        return self.decoder_pred(self.tokens(latent, mask, ids_restore, valid))

    def tokens(self, latent: Tensor, mask: Tensor, ids_restore: Tensor, valid: Tensor | None) -> Tensor:
        """What patches are predicted from, `(batch, patches, decoder_hidden_size)`; arguments as of `forward`."""
        tokens = self.decoder_embed(latent).to(self.mask_token.dtype)
        class_token, visible = tokens[:, :1], tokens[:, 1:]
        ids_keep = invert_permutation(ids_restore)[:, : visible.shape[1]]
        if valid is not None:
            # Slots that a padded clip does not fill hold no visible patch.
            slot_valid = (valid & (mask == 0)).gather(1, ids_keep)
            visible = torch.where(slot_valid[..., None], visible, self.mask_token)
        batch, num_patches = ids_restore.shape
        canvas = self.mask_token.expand(batch, num_patches, -1)
        canvas = canvas.scatter(1, ids_keep[..., None].expand_as(visible), visible)

        columns = self.config.num_mel_patches
        positions = sincos_positions(num_patches // columns, columns, canvas.shape[-1], canvas.device)
        hidden_states = torch.cat([class_token, canvas + positions.to(canvas.dtype)], dim=1)
        attention_mask = _token_mask(self.config, hidden_states, valid)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask)
        return self.norm(hidden_states)[:, 1:]


class AudioPGPreTrainedModel(PreTrainedModel):
    """What the AudioPG models share: how weights start, load and save, and what the library may assume of them."""

    config: AudioPGConfig
    base_model_prefix = "audiopg"
    main_input_name = "input_values"
    input_modalities = ["audio"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    # The losses are means over what is in the batch; `Trainer` must not rescale them by a count of labels.
    accepts_loss_kwargs = False
    _no_split_modules = ["AudioPGEmbeddings", "AudioPGLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": AudioPGLayer, "attentions": AudioPGAttention}  # noqa: RUF012
    _input_embed_layer = "patch_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start as a masked autoencoder does: Xavier-uniform linears, small random class and mask tokens."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, AudioPGEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)
        elif isinstance(module, AudioPGDecoder):
            init.normal_(module.mask_token, std=self.config.initializer_range)


_DECODER = r"^decoder\."
"""Weights that the encoder and the classifier leave behind when they load a pre-training checkpoint."""


class AudioPGModel(AudioPGPreTrainedModel):
    """The AudioPG encoder: spectrograms in, one token per visible patch and a clip embedding out.

    Args:
        config: Sizes of the model.

    Example:
        >>> model = AudioPGModel(AudioPGConfig.of_size("tiny")).eval()
        >>> output = model(torch.randn(2, 64, 128))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([2, 33, 192]), torch.Size([2, 192]))
    """

    _keys_to_ignore_on_load_unexpected = [_DECODER]  # noqa: RUF012

    def __init__(self, config: AudioPGConfig) -> None:
        super().__init__(config)
        self.embeddings = AudioPGEmbeddings(config)
        deepest = max(1, config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(
            AudioPGLayer(
                config,
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                drop_path_rate=config.drop_path_rate * depth / deepest,
            )
            for depth in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        noise: Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> AudioPGModelOutput:
        """Encode a batch of spectrograms.

        Args:
            input_values: Standardised log-mel spectrograms, shape `(batch, frames, num_mel_bins)`; the frames are a
                multiple of `config.patch_shape[0]`. With several channels, see `AudioPGConfig`.
            attention_mask: 1 at real frames, 0 at padding, shape `(batch, frames)`; None when all are real. Leave it
                out where you can: attention without a mask has faster kernels.
            noise: One number per patch, shape `(batch, patches)`. If given, the encoder sees only the patches with
                the smallest noise, `1 - config.mask_ratio` of them; if not, it sees all, in training too.
            output_hidden_states: Whether to return the tokens before and after each block.
            output_attentions: Whether to return the attention weights. Only `attn_implementation="eager"` has them:
                others warn and return none, as everywhere in transformers.

        Returns:
            The tokens, their mean, and which patches were masked.

        Raises:
            ValueError: if a shape does not fit.
        """
        self._warn_of_attentions(output_attentions)
        hidden_states, valid, mask, ids_restore = self._embed_patches(input_values, attention_mask, noise)
        hidden_states = self.norm(self._transform(hidden_states, valid, self.layers))
        return AudioPGModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=_masked_mean(hidden_states[:, 1:], valid),
            mask=mask,
            ids_restore=ids_restore,
        )

    def _embed_patches(
        self, input_values: Tensor, attention_mask: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Tokens before the first block, which patches among them are real, and `mask` and `ids_restore`."""
        config = self.config
        _check_inputs(config, input_values, attention_mask, noise)
        columns = config.num_mel_patches
        patches = patchify(input_values, config.patch_shape)
        batch, num_patches, _ = patches.shape
        valid = None if attention_mask is None else valid_patches(attention_mask, config.patch_shape[0], columns)
        positions = sincos_positions(num_patches // columns, columns, config.hidden_size, patches.device)

        if noise is None:
            mask = torch.zeros(batch, num_patches, device=patches.device)
            ids_restore = torch.arange(num_patches, device=patches.device).expand(batch, -1)
        else:
            ids_keep, valid, mask, ids_restore = random_masking(noise, config.mask_ratio, valid)
            patches = patches.gather(1, ids_keep[..., None].expand(-1, -1, patches.shape[-1]))
            positions = positions[ids_keep]
        if valid is not None:
            # Whatever stands in the padding, or in a slot that is not filled, no part of it may get through.
            patches = patches.masked_fill(~valid[..., None], 0.0)
        return self.embeddings(patches, positions), valid, mask, ids_restore

    def _transform(self, hidden_states: Tensor, valid: Tensor | None, layers: Iterable[nn.Module]) -> Tensor:
        """Pass tokens through some of the blocks."""
        token_mask = _token_mask(self.config, hidden_states, valid)
        for layer in layers:
            hidden_states = layer(hidden_states, token_mask)
        return hidden_states

    def time_patch_embeddings(
        self, inputs: Mapping[str, Tensor], pooling: str | None = None, layer: int | None = None
    ) -> Tensor:
        """One vector for each time patch, from all of its mel patches: what `embed` and `embed_frames` are made of.

        Args:
            inputs: As from `AudioPGFeatureExtractor`.
            pooling: See `EmbeddingOptions`.
            layer: See there.

        Returns:
            Shape `(batch, time patches, width)`, float32; those of padding mean nothing.

        Raises:
            ValueError: as `forward`, or if there is no such pooling or layer.

        Example:
            >>> model = AudioPGModel(AudioPGConfig.of_size("tiny")).eval()
            >>> model.time_patch_embeddings({"input_values": torch.randn(2, 64, 128)}, "mel").shape
            torch.Size([2, 4, 1536])
        """
        layer = self.config.embedding_layer if layer is None else layer
        self.config.check_layer("layer", layer)
        if layer is None:
            tokens = self(**inputs, return_dict=True).last_hidden_state
        else:  # the blocks above it have no part in this
            tokens, valid, _, _ = self._embed_patches(**inputs)
            tokens = self._transform(tokens, valid, self.layers[:layer])
        return pool_mel_patches(tokens, self.config.num_mel_patches, pooling or self.config.embedding_pooling)

    def embed(
        self,
        waveforms: ArrayLike | Sequence[ArrayLike],
        feature_extractor: AudioPGFeatureExtractor,
        **options: Unpack[EmbeddingOptions],
    ) -> Tensor:
        """Embed recordings of any length from 25 ms on, each to one vector.

        What is read is what the checkpoint's configuration says, `embedding_pooling` of the tokens of
        `embedding_layer`, which its card gives reasons for; without these, the mean of the output's patch tokens, of a
        recording of one window its `pooler_output`. Memory does not grow with the recording but for its frame
        embeddings: 3 kB for 160 ms with the paper's model and "mean", where the samples themselves are 10 kB.

        Args:
            waveforms: One mono recording or many, as `AudioPGFeatureExtractor` takes them.
            feature_extractor: The checkpoint's own.
            options: `pooling`, "mean", "mel" or "mel_std"; `layer`; `window_seconds` and `overlap_seconds`, how longer
                recordings are cut; `batch_size`, windows at a time: see `EmbeddingOptions`.

        Returns:
            Shape `(recordings, hidden_size)`, with "mel" as many times wider as there are patches along mel, with
            "mel_std" twice that; float32, on the model's device.

        Raises:
            ValueError: if a recording or a window is too short, the feature extractor refuses the samples or is of
                another checkpoint, or there is no such pooling or layer.

        Example:
            >>> model = AudioPGModel(AudioPGConfig.of_size("tiny"))
            >>> model.embed([torch.zeros(400), torch.zeros(12 * 16000)], AudioPGFeatureExtractor()).shape
            torch.Size([2, 192])
        """
        pooling = options.get("pooling") or self.config.embedding_pooling
        recordings = self._embed(waveforms, feature_extractor, **options)
        return torch.stack([pool_moments(frames.embeddings, pooling) for frames in recordings])

    def embed_spectrograms(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What `embed` gives of recordings whose log-mel is there already: SentenceTransformer asks for it.

        Args:
            input_values: As from `AudioPGFeatureExtractor`, of any length: longer ones are cut into windows.
            attention_mask: As from there.

        Returns:
            As from `embed`, with the default options; unlike there, gradients go through.

        Raises:
            ValueError: as `forward`.

        Example:
            >>> model = AudioPGModel(AudioPGConfig.of_size("tiny")).eval()
            >>> model.embed_spectrograms(torch.randn(2, 2000, 128)).shape
            torch.Size([2, 192])
        """
        frames = input_values.shape[1]
        lengths = [frames] * len(input_values) if attention_mask is None else attention_mask.sum(dim=1).tolist()
        recordings = spectrogram_embeddings(
            self.time_patch_embeddings,
            [values[:length] for values, length in zip(input_values, lengths, strict=True)],
            device=self.device,
            patch_size=self.config.patch_shape[0],
        )
        return torch.stack([pool_moments(moments, self.config.embedding_pooling) for moments in recordings])

    def embed_frames(
        self,
        waveforms: ArrayLike | Sequence[ArrayLike],
        feature_extractor: AudioPGFeatureExtractor,
        **options: Unpack[EmbeddingOptions],
    ) -> list[AudioPGFrameEmbeddings]:
        """Embed recordings of any length from 25 ms on, each to one vector for every time patch.

        That is one every 160 ms where patches have 16 frames.

        Args:
            waveforms: As `embed`, like the other arguments.
            feature_extractor: See `embed`.
            options: See `embed`.

        Returns:
            For each recording its `embeddings`, the mel patches at each time patch, pooled and averaged over the
            windows that cover it, shape `(time patches, hidden_size)`, with "mel" and "mel_std" as many times wider
            as there are patches along mel; and `times`, their centres in seconds.

        Raises:
            ValueError: as `embed`.

        Example:
            >>> model = AudioPGModel(AudioPGConfig.of_size("tiny"))
            >>> [frames] = model.embed_frames(torch.zeros(16000), AudioPGFeatureExtractor())
            >>> frames.embeddings.shape, frames.times[:2].round(decimals=2)
            (torch.Size([7, 192]), tensor([0.0900, 0.2500]))
        """
        return list(self._embed(waveforms, feature_extractor, **options))

    @torch.no_grad()
    def _embed(
        self,
        waveforms: Any,
        feature_extractor: Any,
        *,
        pooling: str | None = None,
        layer: int | None = None,
        **windows: Any,
    ) -> Iterator[AudioPGFrameEmbeddings]:
        was_training = self.training
        self.eval()
        try:
            yield from frame_embeddings(
                lambda inputs: self.time_patch_embeddings(inputs, pooling, layer),
                feature_extractor,
                waveforms,
                device=self.device,
                **windows,
            )
        finally:
            self.train(was_training)

    def _warn_of_attentions(self, output_attentions: bool | None) -> None:
        wanted = self.config.output_attentions if output_attentions is None else output_attentions
        if wanted and self.config._attn_implementation != "eager":
            logger.warning_once(
                f'attn_implementation="{self.config._attn_implementation}" computes no attention weights, so none are '
                'returned: load the model with attn_implementation="eager", or call '
                'model.set_attn_implementation("eager").'
            )


class AudioPGForPreTraining(AudioPGPreTrainedModel):
    """The masked autoencoder: the encoder, and a decoder that redraws the patches that were hidden from it.

    Args:
        config: Sizes of the model.

    Example:
        >>> model = AudioPGForPreTraining(AudioPGConfig.of_size("tiny"))
        >>> output = model(torch.randn(2, 64, 128), noise=torch.rand(2, 32))
        >>> output.logits.shape, int(output.mask.sum())
        (torch.Size([2, 32, 256]), 48)
    """

    def __init__(self, config: AudioPGConfig) -> None:
        super().__init__(config)
        self.audiopg = AudioPGModel(config)
        self.decoder = AudioPGDecoder(config)
        self.post_init()
        # Taken over from the encoder; here, weights that the decoder has no place for are worth a warning.
        self._keys_to_ignore_on_load_unexpected = set()

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        noise: Tensor | None = None,
        return_loss: bool = True,
        target_values: Tensor | None = None,
        **kwargs: Any,
    ) -> AudioPGForPreTrainingOutput:
        """Hide patches, redraw them, and compare.

        Args:
            input_values: As for `AudioPGModel`.
            attention_mask: As for `AudioPGModel`.
            noise: One number per patch, shape `(batch, patches)`: the smallest stay visible. If not given, it is drawn
                while training; in evaluation it is `content_noise`, so that a clip has the same mask in every
                evaluation, whatever is in its batch, and losses compare.
            return_loss: If False, and without `noise`, nothing is masked in evaluation, and the logits show how
                visible patches are redrawn. `Trainer` evaluates models that have this argument.
            target_values: What is to be redrawn where it is not what is seen, such as one of the sounds of a mixture;
                shaped as `input_values`.
            kwargs: `output_hidden_states` and `output_attentions`, as for `AudioPGModel`.

        Returns:
            The loss (None if nothing was masked), the predicted patches and the mask.

        Raises:
            ValueError: as `AudioPGModel`.
        """
        config = self.config
        if noise is None and (self.training or return_loss):
            _check_inputs(config, input_values, attention_mask, noise)
            noise = self._draw_noise(input_values, attention_mask)
        encoded = self.audiopg(input_values, attention_mask, noise, return_dict=True, **kwargs)
        columns = config.num_mel_patches
        valid = None if attention_mask is None else valid_patches(attention_mask, config.patch_shape[0], columns)
        logits = self.decoder(encoded.last_hidden_state, encoded.mask, encoded.ids_restore, valid)
        loss = None
        if noise is not None:
            patches = patchify(input_values if target_values is None else target_values, config.patch_shape)
            loss = reconstruction_loss(logits, patches, encoded.mask, norm_pix_loss=config.norm_pix_loss)
        return AudioPGForPreTrainingOutput(
            loss=loss,
            logits=logits,
            mask=encoded.mask,
            ids_restore=encoded.ids_restore,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _draw_noise(self, input_values: Tensor, attention_mask: Tensor | None) -> Tensor:
        num_patches = input_values[0].numel() // self.config.patch_values
        if self.training:
            return torch.rand(input_values.shape[0], num_patches, device=input_values.device)
        if attention_mask is not None:
            attention_mask = attention_mask.repeat(1, self.config.num_channels)
        # Channels one after the other, as if they were frames: no content goes unseen.
        return content_noise(input_values.flatten(1, -2), attention_mask, num_patches)


class AudioPGForAudioClassification(AudioPGPreTrainedModel):
    """The encoder with a linear classifier on the mean of the patch tokens (AudioPG, section 4).

    With `config.classifier_pooling` "mel", on the means over time of all rows of patches along mel, side by side; with
    "mel_std", on their standard deviations over time, too.

    Args:
        config: Sizes of the model; `num_labels` and `problem_type` shape the classifier and its loss.

    Example:
        >>> model = AudioPGForAudioClassification(AudioPGConfig.of_size("tiny", num_labels=50)).eval()
        >>> model(torch.randn(2, 64, 128), labels=torch.tensor([7, 49])).logits.shape
        torch.Size([2, 50])
    """

    _keys_to_ignore_on_load_unexpected = [_DECODER]  # noqa: RUF012

    def __init__(self, config: AudioPGConfig) -> None:
        super().__init__(config)
        self.audiopg = AudioPGModel(config)
        self.classifier = nn.Linear(config.pooled_size(config.classifier_pooling), config.num_labels or 0)
        self.post_init()

    def freeze_feature_encoder(self) -> None:
        """Stop the training of the patch projection, the only part that stands where others have a feature encoder.

        It has this name because transformers' example script `run_audio_classification.py` calls it by default.
        """
        self.audiopg.embeddings.patch_embeddings.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classify a batch of spectrograms; all patches are seen, in training too.

        Args:
            input_values: As for `AudioPGModel`.
            attention_mask: As for `AudioPGModel`.
            labels: Class numbers `(batch,)`, probabilities `(batch, num_labels)`, or what else
                `classification_loss` takes for `config.problem_type`.
            kwargs: `output_hidden_states` and `output_attentions`, as for `AudioPGModel`.

        Returns:
            The logits, `(batch, num_labels)`, and the loss if labels were given.

        Raises:
            ValueError: as `AudioPGModel` and `classification_loss`.
        """
        encoded = self.audiopg(input_values, attention_mask, return_dict=True, **kwargs)
        if self.config.classifier_pooling == "mean":
            pooled = encoded.pooler_output
        else:
            pooled = self._pooled_rows(encoded.last_hidden_state, attention_mask)
        logits = self.classifier(pooled)
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def _pooled_rows(self, last_hidden_state: Tensor, attention_mask: Tensor | None) -> Tensor:
        """What `classifier_pooling` keeps of rows of patches along mel."""
        pooling = self.config.classifier_pooling
        rows = pool_mel_patches(last_hidden_state, self.config.num_mel_patches, pooling)
        patch_frames, _ = self.config.patch_shape
        valid = None if attention_mask is None else valid_patches(attention_mask, patch_frames, columns=1)
        return pool_moments(rows, pooling, valid).to(self.classifier.weight.dtype)


# Every save of a model, also one that is part of another, copies this file and what it imports.
AudioPGModel.register_for_auto_class("AutoModel")
AudioPGForPreTraining.register_for_auto_class("AutoModelForPreTraining")
AudioPGForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")

__all__ = [
    "AudioPGForAudioClassification",
    "AudioPGForPreTraining",
    "AudioPGForPreTrainingOutput",
    "AudioPGModel",
    "AudioPGModelOutput",
    "AudioPGPreTrainedModel",
]

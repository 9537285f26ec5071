"""The networks of ``transformers``, by name, from configurations of any size."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from model_cases import Batch, Case, Size, images, own_loss, tokens
from torch import nn
from torch.nn import functional


def _text(s: Size, **more: Any) -> dict[str, Any]:
    """Settings that most configurations for text share."""
    return {
        "vocab_size": s.words, "hidden_size": s.width, "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads, "intermediate_size": 4 * s.width,
        "max_position_embeddings": s.length, **more,
    }


def _picture(s: Size, **more: Any) -> dict[str, Any]:
    return {"image_size": s.image, "patch_size": 4, "num_labels": 10, **more}


def _decoder(config: Any, model: Any, **settings: Any) -> Case:
    def build(s: Size) -> nn.Module:
        made: nn.Module = model(config(
            **_text(s, num_key_value_heads=max(1, s.heads // 2), **settings)))
        return made
    return Case(build, _same, own_loss("input_ids", "labels"))


def _bert(s: Size) -> nn.Module:
    return hf.BertForMaskedLM(hf.BertConfig(**_text(s)))


def _distilbert(s: Size) -> nn.Module:
    return hf.DistilBertForMaskedLM(hf.DistilBertConfig(
        vocab_size=s.words, dim=s.width, n_layers=s.layers, n_heads=s.heads,
        hidden_dim=4 * s.width, max_position_embeddings=s.length))


def _gpt2(s: Size) -> nn.Module:
    return hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=s.words, n_embd=s.width, n_layer=s.layers, n_head=s.heads,
        n_positions=s.length, bos_token_id=1, eos_token_id=2))


def _t5(s: Size) -> nn.Module:
    return hf.T5ForConditionalGeneration(hf.T5Config(
        vocab_size=s.words, d_model=s.width, d_kv=s.width // s.heads, d_ff=4 * s.width,
        num_layers=s.layers, num_heads=s.heads, decoder_start_token_id=0))


def _mamba(s: Size) -> nn.Module:
    return hf.MambaForCausalLM(hf.MambaConfig(
        vocab_size=s.words, hidden_size=s.width, num_hidden_layers=s.layers, state_size=8))


def _vit(s: Size) -> nn.Module:
    return hf.ViTForImageClassification(hf.ViTConfig(**_picture(
        s, hidden_size=s.width, num_hidden_layers=s.layers, num_attention_heads=s.heads,
        intermediate_size=4 * s.width)))


def _convnext(s: Size) -> nn.Module:
    widths = [s.width << i for i in range(len(s.blocks))]
    return hf.ConvNextForImageClassification(hf.ConvNextConfig(**_picture(
        s, num_stages=len(s.blocks), hidden_sizes=widths, depths=list(s.blocks))))


def _swin(s: Size) -> nn.Module:
    return hf.SwinForImageClassification(hf.SwinConfig(**_picture(
        s, patch_size=2, embed_dim=s.width, depths=[2, s.layers], num_heads=[s.heads, s.heads],
        window_size=4)))


def _whisper(s: Size) -> nn.Module:
    return hf.WhisperForConditionalGeneration(hf.WhisperConfig(
        vocab_size=s.words, num_mel_bins=8, encoder_layers=s.layers, decoder_layers=s.layers,
        encoder_attention_heads=s.heads, decoder_attention_heads=s.heads,
        encoder_ffn_dim=4 * s.width, decoder_ffn_dim=4 * s.width, d_model=s.width,
        max_source_positions=s.length, max_target_positions=s.length, dropout=0.1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1))


def _wav2vec2(s: Size) -> nn.Module:
    model = hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(
        vocab_size=s.words,
        hidden_size=s.width, num_hidden_layers=s.layers, num_attention_heads=s.heads,
        intermediate_size=4 * s.width, conv_dim=[s.width, s.width], conv_stride=[5, 4],
        conv_kernel=[10, 8], num_feat_extract_layers=2, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, layerdrop=0.0, apply_spec_augment=False))
    model.wav2vec2.feature_extractor._requires_grad = False
    return model


def _clip(s: Size) -> nn.Module:
    text = {**_text(s), "projection_dim": s.width, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2}
    vision = {k: v for k, v in _text(s).items() if k not in ("vocab_size",)}
    vision.update(_picture(s), projection_dim=s.width)
    return hf.CLIPModel(hf.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=s.width))


def _same(s: Size) -> Batch:
    text = tokens(s)
    return text, text


def _masked(s: Size) -> Batch:
    """A padded batch with its mask; the padding has no loss."""
    text = tokens(s)
    mask = torch.ones_like(text)
    mask[0, s.length - 2:] = 0
    return text, mask, torch.where(mask == 1, text, -100)


def _pairs(s: Size) -> Batch:
    return tokens(s), tokens(s)


def _speech(s: Size) -> Batch:
    return torch.randn(s.batch, 8, 2 * s.length), tokens(s)


def _waves(s: Size) -> Batch:
    return torch.randn(s.batch, 80 * s.length), torch.randint(1, s.words, (s.batch, s.length // 2))


def _captions(s: Size) -> Batch:
    text = tokens(s)
    text[:, -1] = 2
    return text, torch.randn(s.batch, 3, s.image, s.image)


def _spelled(model: Any, waves: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Connectionist temporal classification of logits (batch, time, words)."""
    logits = model(waves).logits
    steps, letters = (torch.full((len(text),), n) for n in (logits.shape[1], text.shape[1]))
    spread = logits.log_softmax(2).transpose(0, 1)
    return functional.ctc_loss(spread, text, steps, letters)


def _contrast(model: Any, text: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=text, pixel_values=picture, return_loss=True).loss
    return loss


MASKED = own_loss("input_ids", "attention_mask", "labels")
LABELED = own_loss("pixel_values", "labels")

TRANSFORMERS: dict[str, Case] = {
    "bert": Case(_bert, _masked, MASKED),
    "distilbert": Case(_distilbert, _masked, MASKED),
    "gpt2": Case(_gpt2, _same, own_loss("input_ids", "labels")),
    "llama": _decoder(hf.LlamaConfig, hf.LlamaForCausalLM),
    "mistral": _decoder(hf.MistralConfig, hf.MistralForCausalLM, sliding_window=4),
    "qwen2": _decoder(hf.Qwen2Config, hf.Qwen2ForCausalLM),
    "mixtral": _decoder(
        hf.MixtralConfig, hf.MixtralForCausalLM, num_local_experts=4, num_experts_per_tok=2),
    "t5": Case(_t5, _pairs, own_loss("input_ids", "labels")),
    "vit": Case(_vit, images(), LABELED),
    "convnext": Case(_convnext, images(), LABELED),
    "swin": Case(_swin, images(), LABELED),
    "whisper": Case(_whisper, _speech, own_loss("input_features", "labels")),
    "wav2vec2": Case(
        _wav2vec2, _waves, _spelled,
        why="layers and spans of input are not dropped, as NumPy and Python draw those; the input "
        "is not marked as requiring gradients, which breaks the graph"),
    "clip": Case(_clip, _captions, _contrast),
    "mamba": Case(_mamba, _same, own_loss("input_ids", "labels"),
                  why="its kernels in CUDA are not there; the loop over time is traced"),
}

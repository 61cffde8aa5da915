"""Classifiers of the ``transformers`` library, small and from their configurations: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import transformers as hf
from torch import nn

from benchmarks.zoo.entry import Entry

BLOCK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VIT = {"image_size": 64, "patch_size": 8, **BLOCK}
DINO = {"image_size": 56, "patch_size": 14, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SWIN = {"image_size": 64, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
FOUR: dict[str, Any] = {"hidden_sizes": [8, 16, 40, 64], "depths": [1, 1, 1, 1]}
SPEECH = {"conv_dim": [16] * 3, "conv_stride": [5, 4, 4], "conv_kernel": [10, 8, 4], "classifier_proj_size": 16}
SPEECH |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, **BLOCK}
VIDEO = {"image_size": 32, "num_frames": 8, **BLOCK}

IMAGE, LARGE, WIDE = (2, 3, 64, 64), (2, 3, 128, 128), (2, 3, 112, 84)
CLASS = "behind the last block's first norm only the class token is read"
MEAN = "the mean over tokens is read behind the last block"
STAGE = "what the head pools: the last stage"
TIME = "the mean over time is read behind the encoder; a projection follows"
FRAMES = "; frames, height, width: axes 1, 3, 4 of the input"


def classifier(config: str, model: str, **options: Any) -> nn.Module:
    """Make a classifier of three classes."""
    made: nn.Module = getattr(hf, model)(getattr(hf, config)(num_labels=3, **options))
    return made


def paired(name: str) -> nn.Module:
    """Make a vision classifier whose configuration also describes a text model."""
    text = {**BLOCK, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1}
    options = {"vision_config": VIT, "text_config": text}
    return classifier(f"{name}Config", f"{name}ForImageClassification", **options)


def image(name: str, layer: str | None, grid: tuple[int, ...], reason: str, shape=IMAGE, **options: Any) -> Entry:  # type: ignore[no-untyped-def]
    """Describe an image classifier whose classes are named as usual."""
    model = f"{name}ForImageClassification"
    return Entry(name, lambda: classifier(f"{name}Config", model, **options), shape, layer, grid, reason)


ENTRIES = [
    image("ViT", "vit.layers.1.layernorm_before", (8, 8), CLASS, **VIT),
    Entry(
        "DeiT",
        lambda: classifier("DeiTConfig", "DeiTForImageClassificationWithTeacher", **VIT),
        IMAGE,
        "deit.layers.1.layernorm_before",
        (8, 8),
        CLASS + ", and the distillation token",
    ),
    image("ViTMSN", "vit.layers.1.layernorm_before", (8, 8), CLASS, **VIT),
    image("Beit", "beit.layers.1", (8, 8), MEAN, **VIT),
    image("Data2VecVision", "data2vec_vision.encoder.layer.1", (8, 8), MEAN, **VIT),
    image("IJepa", "ijepa.layernorm", (8, 8), MEAN, **VIT),
    image("Dinov2", "dinov2.layernorm", (8, 6), "class token and mean are read", WIDE, **DINO),
    image(
        "Dinov2WithRegisters", "dinov2_with_registers.layernorm", (8, 6), "class token and mean are read", WIDE, **DINO
    ),
    Entry("CLIP", lambda: paired("CLIP"), IMAGE, "vision_model.encoder.layers.1", (8, 8), MEAN),
    Entry("Siglip", lambda: paired("Siglip"), IMAGE, "vision_model.post_layernorm", (8, 8), MEAN),
    image("Swin", "swin.layernorm", (16, 16), STAGE, **SWIN),
    image("Swinv2", "swinv2.layernorm", (16, 16), STAGE, **SWIN),
    image(
        "Hiera",
        "hiera.encoder.stages.3",
        (4, 4),
        STAGE,
        LARGE,
        image_size=[128, 128],
        embed_dim=16,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
    ),
    image("FocalNet", "focalnet.layernorm", (4, 4), STAGE, LARGE, image_size=128, embed_dim=16, depths=[1, 1, 1, 1]),
    image("PvtV2", "pvt_v2.encoder.layers.3.layer_norm", (4, 4), STAGE, LARGE, image_size=128, **FOUR),
    image("Pvt", "pvt.encoder.block.3.0.layer_norm_1", (4, 4), CLASS, LARGE, image_size=128, **FOUR),
    image("Segformer", "segformer.stages.3", (2, 2), STAGE, decoder_hidden_size=16, **FOUR),
    image("PoolFormer", "norm", (2, 2), STAGE, **FOUR),
    image("ConvNext", "convnext.encoder.stages.3", (2, 3), STAGE, (2, 3, 64, 96), **FOUR),
    image("ConvNextV2", "convnextv2.encoder.stages.3", (2, 3), STAGE, (2, 3, 64, 96), **FOUR),
    image(
        "ResNet",
        "resnet.encoder.stages.2",
        (4, 4),
        STAGE,
        embedding_size=8,
        hidden_sizes=[8, 16, 32],
        depths=[1, 1, 1],
    ),
    image("RegNet", "regnet.encoder.stages.3", (2, 2), STAGE, embedding_size=8, groups_width=8, **FOUR),
    image("MobileNetV2", "mobilenet_v2.conv_1x1", (2, 2), STAGE, image_size=64),
    image("MobileViT", "mobilevit.conv_1x1_exp", (2, 2), STAGE, image_size=64),
    image("MobileViTV2", "mobilevitv2.encoder.layer.4", (2, 2), STAGE, image_size=64),
    image("EfficientNet", "efficientnet.encoder.top_activation", (2, 2), STAGE, image_size=64),
    Entry(
        "Wav2Vec2",
        lambda: classifier("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification", **SPEECH),
        (2, 4000),
        "wav2vec2.encoder.layers.1",
        (49,),
        TIME,
    ),
    Entry(
        "Hubert",
        lambda: classifier("HubertConfig", "HubertForSequenceClassification", **SPEECH),
        (2, 4000),
        "hubert.encoder.layers.1",
        (49,),
        TIME,
    ),
    Entry(
        "AST",
        lambda: classifier("ASTConfig", "ASTForAudioClassification", max_length=128, num_mel_bins=64, **BLOCK),
        (2, 128, 64),
        "audio_spectrogram_transformer.layers.1.layernorm_before",
        (12, 5),
        CLASS + "; time first, as the input has it",
    ),
    Entry(
        "Whisper",
        lambda: classifier(
            "WhisperConfig",
            "WhisperForAudioClassification",
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=4,
            encoder_ffn_dim=64,
            vocab_size=99,
            num_mel_bins=20,
            max_source_positions=100,
            classifier_proj_size=16,
            decoder_layers=1,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            decoder_start_token_id=0,
        ),
        (2, 20, 200),
        "encoder.layer_norm",
        (100,),
        TIME,
    ),
    Entry(
        "VideoMAE",
        lambda: classifier("VideoMAEConfig", "VideoMAEForVideoClassification", patch_size=8, **VIDEO),
        (2, 8, 3, 32, 32),
        "videomae.encoder.layer.1",
        (4, 4, 4),
        MEAN + FRAMES,
    ),
    Entry(
        "Vivit",
        lambda: classifier("VivitConfig", "VivitForVideoClassification", tubelet_size=[2, 8, 8], **VIDEO),
        (2, 8, 3, 32, 32),
        "vivit.layers.1.layernorm_before",
        (4, 4, 4),
        CLASS + FRAMES,
    ),
]

"""Classifiers of ``timm``, as published or with fewer blocks, with random weights."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from benchmarks.zoo.entry import Entry

WIDE = (2, 3, 160, 96)
SQUARE = (2, 3, 224, 224)
POOLED = "what the head pools"
CLASS = "behind the last block's first norm only the class token is read"
MEAN = "the mean over tokens is read behind the last norm"
LIST = "; the blocks are a list, which is not called itself"
STAGE = "the last stage, which the head pools"
LAST = "the last class attention reads the tokens behind its norm"
BOTH = "class token and tokens are read"


def made(name: str, **options: Any) -> nn.Module:
    """Make a network of ten classes."""
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=10, **options)
    return model


def image(
    name: str, layer: str | None, grid: tuple[int, ...], reason: str = POOLED, shape=SQUARE, **options: Any
) -> Entry:  # type: ignore[no-untyped-def]
    """Describe an image classifier."""
    return Entry(name, lambda: made(name.partition(" ")[0], **options), shape, layer, grid, reason)


def conv(name: str, layer: str, grid: tuple[int, ...] = (5, 3), reason: str = POOLED) -> Entry:
    """Describe a convolutional one."""
    return image(name, layer, grid, reason, WIDE)


THREE = {"depth": 3}

ENTRIES = [
    conv("resnet18", "layer4"),
    conv("resnetv2_50", "norm"),
    conv("seresnet50", "layer4"),
    conv("convnext_atto", "stages"),
    conv("convnextv2_atto", "stages"),
    conv("efficientnet_lite0", "bn2"),
    conv("mobilenetv3_small_100", "blocks", reason=POOLED + "; a convolution of one position follows"),
    conv("mobilenetv4_conv_small", "blocks", reason=POOLED + "; a convolution of one position follows"),
    conv("ghostnet_100", "blocks", reason=POOLED + "; a convolution of one position follows"),
    conv("regnety_002", "s4", reason=POOLED + "; the final convolution is an identity in this one"),
    conv("repvgg_a0", "stages"),
    conv("hrnet_w18_small", "final_layer"),
    conv("dla34", "level5"),
    conv("xception41", "blocks", reason=POOLED + "; the last activation is an identity in this one"),
    conv("rexnet_100", "features"),
    conv("dm_nfnet_f0", "final_act"),
    conv("darknet53", "stages"),
    conv("convmixer_768_32", "blocks", (22, 13)),
    conv("inception_next_atto", "stages"),
    conv("poolformer_s12", "stages", reason=STAGE),
    conv("fastvit_t8", "final_conv"),
    conv("edgenext_xx_small", "stages", reason=STAGE),
    conv("mobilevit_xxs", "final_conv"),
    image("vit_tiny_patch16_224", "blocks.2.norm1", (14, 14), CLASS, **THREE),
    image("vit_tiny_patch16_224 pooled", "blocks", (14, 14), MEAN, global_pool="avg", class_token=False, **THREE),
    image("vit_small_patch16_dinov3", "norm", (14, 14), MEAN + ", whose output the mean is of", **THREE),
    image(
        "vit_small_patch14_reg4_dinov2", "blocks.2.norm1", (8, 6), CLASS, (2, 3, 112, 84), img_size=(112, 84), **THREE
    ),
    image("vit_base_patch16_siglip_224", "norm", (14, 14), "an attention pool reads the tokens", **THREE),
    image("deit_tiny_distilled_patch16_224", "blocks.2.norm1", (14, 14), CLASS, **THREE),
    image("beit_base_patch16_224", "blocks.2", (14, 14), MEAN + LIST, **THREE),
    image("eva02_tiny_patch14_224", "blocks.2", (16, 16), MEAN + LIST, **THREE),
    image("cait_xxs24_224", "blocks_token_only.1.norm1", (14, 14), LAST, **THREE),
    image("xcit_nano_12_p16_224", "cls_attn_blocks.1.norm1", (14, 14), LAST, **THREE),
    image("crossvit_tiny_240", "blocks.2.fusion.1.norm1", (20, 20), LAST + ", those of one branch", (2, 3, 240, 240)),
    image("volo_d1_224", "norm", (14, 14), BOTH),
    image("tnt_s_patch16_224", "blocks.2.norm_out", (14, 14), CLASS, **THREE),
    image("levit_128", "stages", (4, 4), MEAN, depth=(1, 1, 1)),
    image("pit_ti_224", "transformers.2", (7, 7), CLASS, depth=(1, 1, 1)),
    image("hiera_tiny_224", "blocks.4", (7, 7), STAGE, stages=(1, 1, 2, 1)),
    image("swin_tiny_patch4_window7_224", "norm", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("swinv2_cr_tiny_224", "stages", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("twins_svt_small", "norm", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("twins_pcpvt_small", "norm", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("pvt_v2_b0", "stages", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("davit_tiny", "stages", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("focalnet_tiny_srf", "norm", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("nest_tiny", "norm", (14, 14), STAGE, depths=(1, 1, 1)),
    image("coat_tiny", "norm4", (7, 7), CLASS, serial_depths=(1, 1, 1, 1), parallel_depth=1),
    image("coatnet_nano_rw_224", "norm", (7, 7), STAGE),
    image("maxvit_nano_rw_256", "stages", (8, 8), STAGE, (2, 3, 256, 256)),
    image("mvitv2_tiny", "norm", (7, 7), STAGE, depths=(1, 1, 1, 1)),
    image("visformer_tiny", "norm", (7, 7), STAGE, depth=(1, 1, 1)),
    image("mixer_s32_224", "norm", (7, 7), MEAN, num_blocks=2),
    image("gmlp_s16_224", "norm", (14, 14), MEAN, num_blocks=2),
    image("resmlp_12_224", "norm", (14, 14), MEAN, num_blocks=2),
    image("sequencer2d_s", "norm", (14, 14), MEAN, layers=(1, 1, 1, 1)),
]

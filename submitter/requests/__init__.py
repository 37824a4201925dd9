"""Typed requests, one class a platform: shapes, types and docs (floor 0, pure).

What a value may be is not said here: the rules know (`submitter.rules`).
"""

from submitter.requests.nanogpt import GenerateVideo
from submitter.requests.runware import (
    AcceleratorOptions,
    AdvancedFeatures,
    ByteDanceSettings,
    FrameImage,
    GoogleSettings,
    Inputs,
    Lora,
    MiniMaxSettings,
    PixVerseSettings,
    ProviderSettings,
    Safety,
    Speech,
    VideoInference,
    ViduSettings,
    Watermark,
)

__all__ = [
    "AcceleratorOptions",
    "AdvancedFeatures",
    "ByteDanceSettings",
    "FrameImage",
    "GenerateVideo",
    "GoogleSettings",
    "Inputs",
    "Lora",
    "MiniMaxSettings",
    "PixVerseSettings",
    "ProviderSettings",
    "Safety",
    "Speech",
    "VideoInference",
    "ViduSettings",
    "Watermark",
]

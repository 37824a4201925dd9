"""The models that the simulated NanoGPT lists. Any other model id is taken as well. Pure data."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def _model(name: str, title: str, *inputs: str, **parameters: list[str]) -> Json:
    return {
        "id": name,
        "object": "model",
        "name": title,
        "description": f"{title}, as the simulator plays it",
        "architecture": {
            "modality": "video",
            "input_modalities": list(inputs),
            "output_modalities": ["video"],
        },
        "pricing": {"currency": "USD", "per_generation": 0.35},
        "capabilities": {
            "video_generation": True,
            "text_to_video": inputs[0] == "text" and "video" not in inputs,
            "image_to_video": "image" in inputs,
            "video_to_video": "video" in inputs,
            "audio_generation": False,
        },
        "supported_parameters": parameters,
    }


CATALOG: tuple[Json, ...] = (
    _model("sora-2", "Sora 2", "text", "image", seconds=["4", "8", "12"]),
    _model("veo2-video", "Veo 2", "text", "image", duration=["5s", "8s"]),
    _model(
        "pixverse-v5",
        "PixVerse V5",
        *("text", "image"),
        duration=["5", "8"],
        resolution=["360p", "540p", "720p", "1080p"],
    ),
    _model("midjourney-video", "Midjourney Video", "image", motion=["low", "high"]),
    _model(
        "wan-wavespeed-25-extend",
        "Wan 2.5 Extend",
        *("text", "video"),
        duration=["5", "8"],
        resolution=["480p", "720p"],
    ),
    _model("simulator:fail@1", "Always fails", "text", "image"),
)


def listed(*, detailed: bool, now: str) -> Json:
    """The answer of the discovery route; without details each model is its id alone."""
    brief = [{"id": each["id"], "object": "model"} for each in CATALOG]
    data = list(CATALOG) if detailed else brief
    return {"object": "list", "data": data, "meta": {"count": len(data), "generated_at": now}}

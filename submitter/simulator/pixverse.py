"""What PixVerse models on Runware take, in two readings of their pages. Pure: no I/O.

`lenient` is what the published examples show to be accepted, `literal` what the pages say word for
word, which refuses six of their own nine examples. Source: Runware's pages on PixVerse V4 and
V5.5 and its video inference reference; where they contradict each other, a knob decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from submitter.simulator.config import Knobs
from submitter.simulator.contract import DOCUMENTATION, Json, error

SIZES = {
    "360p": ("640x360", "480x360", "360x360", "360x480", "360x640"),
    "540p": ("960x540", "720x540", "540x540", "540x720", "540x960"),
    "720p": ("1280x720", "960x720", "720x720", "720x960", "720x1280"),
    "1080p": ("1920x1080", "1440x1080", "1080x1080", "1080x1440", "1080x1920"),
}
STYLES = ("anime", "3d_animation", "clay", "comic", "cyberpunk")
CAMERAS = (
    *("horizontal_left", "horizontal_right", "vertical_up", "vertical_down", "zoom_in"),
    *("zoom_out", "auto_camera", "crane_up", "quickly_zoom_in", "quickly_zoom_out"),
    *("smooth_zoom_in", "camera_rotation", "robo_arm", "super_dolly_out", "whip_pan"),
    *("hitchcock", "left_follow", "right_follow", "pan_left", "pan_right", "fix_bg"),
)
EFFECTS = (
    *("bikini up", "the tigers touch", "jiggle jiggle", "hug your love", "kiss me ai"),
    *("subject 3 fever", "fin-tastic mermaid", "lets ymca", "skeleton dance", "kungfu club"),
    *("boom drop", "vroom vroom step", "creepy devil smile", "pubg winner hit"),
    *("360 microwave", "eye zoom challenge", "muscle surge", "punch face", "balloon belly"),
    "kiss kiss",
)
SWITCH = (True, False)
SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "style": STYLES,
    "effect": EFFECTS,
    "cameraMovement": CAMERAS,
    "motionMode": ("normal", "fast"),
    "audio": SWITCH,
    "multiClip": SWITCH,
    "thinking": ("enabled", "disabled", "auto"),
}
OLDER_NAMES = {"motionmode": "motionMode"}
POSITIONS = {"first": "first", "0": "first", "last": "last", "-1": "last"}
WHERE = "providerSettings.pixverse"
# Every top-level parameter of the two model pages.
PAGE = (
    *("taskType", "taskUUID", "outputType", "outputFormat", "outputQuality", "webhookURL"),
    *("deliveryMethod", "uploadEndpoint", "safety", "ttl", "includeCost", "numberResults"),
    *("inputs", "model", "positivePrompt", "negativePrompt", "width", "height", "resolution"),
    *("duration", "seed", "providerSettings"),
)
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Model:
    """What differs between the versions; `in_1080p` are the durations of that resolution."""

    durations: tuple[int, ...]
    in_1080p: tuple[int, ...]
    settings: tuple[str, ...]
    limits_settings: bool = False  # the page says: with providerSettings 5 s, and 720p at most


V4 = Model((5, 8), (5, 8), ("style", "effect", "cameraMovement", "motionMode"), True)
V5 = Model((5, 8), (5, 8), ("style", "effect", "motionMode"))
MODELS = {
    "pixverse:1@2": V4,
    "pixverse:1@3": V4,
    "pixverse:1@5": V5,
    "pixverse:1@5-fast": V5,
    "pixverse:1@6": Model((5, 8, 10), (5, 8), ("style", "audio", "multiClip", "thinking")),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A task of a known model, and the reading to take."""

    task: Json
    model: Model
    knobs: Knobs

    @property
    def is_literal(self) -> bool:
        """Whether the pages are taken at their word."""
        return self.knobs.pixverse_rules == "literal"

    def settings(self) -> Json:
        """The provider's settings under their present names; empty when there are none."""
        outer = self.task.get("providerSettings", {})
        inner = outer.get("pixverse", {}) if isinstance(outer, dict) else {}
        found: Json = inner if isinstance(inner, dict) else {}
        if self.is_literal:
            return found
        return {OLDER_NAMES.get(name, name): value for name, value in found.items()}

    def frames(self) -> list[Any] | object:
        """The frame images, in the present place or the former one; None without."""
        inputs = self.task.get("inputs")
        nested = inputs.get("frameImages") if isinstance(inputs, dict) else None
        return nested if nested is not None or self.is_literal else self.task.get("frameImages")

    def size(self) -> str | None:
        """`1280x720`, or None without width and height."""
        if "width" not in self.task and "height" not in self.task:
            return None
        return f"{self.task.get('width')}x{self.task.get('height')}"

    def resolution(self) -> str:
        """The resolution's name; of frames without one it is the default."""
        size = self.size()
        named = (name for name, sizes in SIZES.items() if size in sizes)
        return next(named, str(self.task.get("resolution", "720p")))

    def refused(self, code: str, parameter: str | Sequence[str], says: str, **facts: Any) -> Json:
        """The error about a parameter, or about several that don't go together."""
        first = parameter if isinstance(parameter, str) else parameter[0]
        link = f"{DOCUMENTATION}#request-{first.replace('.', '-').lower()}"
        named = parameter if isinstance(parameter, str) else list(parameter)
        return error(code, self.task, message=says, parameter=named, **facts, documentation=link)


Rule = Callable[[Case], Json | None]


def check(task: Json, knobs: Knobs) -> Json | None:
    """The first error of a task, or None; models without rules pass, and all when they are off."""
    model = MODELS.get(task["model"])
    if model is None or knobs.pixverse_rules == "off" or task["taskType"] != "videoInference":
        return None
    case = Case(task, model, knobs)
    rules = (*RULES, *LITERALLY) if case.is_literal else RULES
    return next((found for rule in rules if (found := rule(case))), None)


def _dimensions(case: Case) -> Json | None:
    task = case.task
    if case.size() is None:
        return None
    for given, other in (("width", "height"), ("height", "width")):
        if other not in task:
            says = f"'{given}' and '{other}' must be used together."
            return case.refused(f"missing{other.capitalize()}", other, says)
    pair = (task["width"], task["height"])
    sizes = [size for sizes in SIZES.values() for size in sizes]
    if all(type(side) is int for side in pair) and case.size() in sizes:
        return None
    says = f"The dimensions {case.size()} are not supported by this model."
    return case.refused("unsupportedDimensions", ("width", "height"), says, allowedValues=sizes)


def _resolution(case: Case) -> Json | None:
    if "resolution" not in case.task:
        return None
    if case.size() is not None:
        together = ("resolution", "width", "height")
        says = "'resolution' cannot be used with 'width' and 'height'."
        return case.refused("incompatibleParameters", together, says)
    if case.task["resolution"] in SIZES:
        return None
    says = "The value of 'resolution' is invalid."
    return case.refused("invalidResolution", "resolution", says, allowedValues=list(SIZES))


def _duration(case: Case) -> Json | None:
    if "duration" not in case.task:
        return None
    value, is_1080p = case.task["duration"], case.resolution() == "1080p"
    allowed = case.model.in_1080p if is_1080p else case.model.durations
    if is_1080p and case.model is V4 and case.knobs.pixverse_1080p_8s == "reject":
        allowed = (5,)
    if value in allowed:
        return None
    says, listed = "The model can't make videos of this duration.", list(allowed)
    return case.refused("unsupportedDuration", "duration", says, type="float", allowedValues=listed)


def _frames(case: Case) -> Json | None:
    frames = case.frames()
    if frames is None:
        return None
    if not isinstance(frames, list) or not 1 <= len(frames) <= 2:
        says = "'frameImages' must be an array of one or two images."
        return case.refused("invalidFrameImages", "inputs.frameImages", says, min=1, max=2)
    faults = [_frame(case, frame) for frame in frames]
    if any(faults):
        return next(fault for fault in faults if fault)
    named = [frame["frame"] for frame in frames if isinstance(frame, dict) and "frame" in frame]
    if len({POSITIONS[str(position)] for position in named}) < len(named):
        says = "Two images have the same frame position."
        return case.refused("duplicateFrame", "inputs.frameImages.frame", says)
    return None


def _frame(case: Case, frame: Any) -> Json | None:
    if isinstance(frame, str) and frame:
        return None
    keys = ("image",) if case.is_literal else ("image", "inputImage", "inputImages")
    image = next((frame[key] for key in keys if key in frame), None) if _is_object(frame) else None
    if not isinstance(image, str) or not image:
        says = "A frame image must be a UUID, a URL, a data URI or base64."
        return case.refused("missingImage", "inputs.frameImages.image", says)
    if str(frame.get("frame", "first")) in POSITIONS:
        return None
    return case.refused(
        "invalidFrame",
        "inputs.frameImages.frame",
        "The value of 'frame' is invalid.",
        allowedValues=["first", "last", 0, -1],
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _settings(case: Case) -> Json | None:
    outer = case.task.get("providerSettings", {})
    if not _is_object(outer) or not all(_is_object(inner) for inner in outer.values()):
        says = "'providerSettings' must be an object of one provider's settings."
        return case.refused("invalidProviderSettings", "providerSettings", says)
    for provider in outer:
        if provider != "pixverse":
            says = f"The settings of '{provider}' don't belong to this model."
            code = "mismatchProviderSettingsProvider"
            return case.refused(code, f"providerSettings.{provider}", says)
    return next((fault for fault in _setting_faults(case) if fault), None)


def _setting_faults(case: Case) -> Iterator[Json | None]:
    for name, value in case.settings().items():
        path, title = f"{WHERE}.{name}", name[0].upper() + name[1:]
        if name not in SETTINGS:
            # The reference has more (soundEffectSwitch, watermark) that the model pages dropped.
            unknown = case.refused("unknownParameter", path, f"'{name}' is unknown.")
            yield unknown if case.is_literal else None
        elif name not in case.model.settings:
            yield case.refused(f"unsupported{title}", path, f"The model has no '{name}'.")
        elif not any(type(value) is type(word) and value == word for word in SETTINGS[name]):
            says, allowed = f"The value of '{name}' is invalid.", list(SETTINGS[name])
            yield case.refused(f"invalid{title}", path, says, allowedValues=allowed)


def _effect_or_camera(case: Case) -> Json | None:
    if not {"effect", "cameraMovement"} <= case.settings().keys():
        return None
    both = (f"{WHERE}.effect", f"{WHERE}.cameraMovement")
    return case.refused("incompatibleParameters", both, "An effect takes no camera movement.")


def _fast(case: Case) -> Json | None:
    if case.settings().get("motionMode") != "fast" or case.knobs.pixverse_fast == "revert":
        return None
    for parameter, is_too_much in (
        ("duration", case.task.get("duration") == 8),
        ("resolution", case.resolution() == "1080p"),
    ):
        if is_too_much:
            both = (f"{WHERE}.motionMode", parameter)
            return case.refused("incompatibleParameters", both, "Too much for fast motion.")
    return None


RULES: tuple[Rule, ...] = (
    _dimensions,
    _resolution,
    _duration,
    _frames,
    _settings,
    _effect_or_camera,
    _fast,
)


def _known_parameters(case: Case) -> Json | None:
    unknown = next((name for name in case.task if name not in PAGE), None)
    if unknown is None:
        return None
    return case.refused("unknownParameter", unknown, f"'{unknown}' is unknown.")


def _one_way(case: Case) -> Json | None:
    has_frames, has_size = case.frames() is not None, case.size() is not None
    if has_frames != has_size:
        return None
    both = ("inputs.frameImages", "width", "height")
    says = "Provide exactly one of 'inputs.frameImages' or 'width' and 'height'."
    return case.refused("incompatibleParameters" if has_size else "missingWidth", both, says)


def _limited_settings(case: Case) -> Json | None:
    if not case.model.limits_settings or "providerSettings" not in case.task:
        return None
    says = "With 'providerSettings', 'duration' is limited to 5 and dimensions to 720p."
    if case.task.get("duration", 5) != 5:
        both = ("providerSettings", "duration")
        return case.refused("incompatibleParameters", both, says, allowedValues=[5])
    if case.resolution() == "1080p":
        return case.refused("incompatibleParameters", ("providerSettings", "width"), says)
    return None


def _letters(case: Case) -> Json | None:
    if case.task.get("outputFormat", "MP4") not in ("MP4", "WEBM", "MOV"):
        formats = ["MP4", "WEBM", "MOV"]
        says = "The value of 'outputFormat' is invalid."
        return case.refused("invalidOutputFormat", "outputFormat", says, allowedValues=formats)
    seed = case.task.get("seed", 0)
    if type(seed) is int and 0 <= seed <= LARGEST_SEED:
        return None
    says = "The value of 'seed' is invalid."
    return case.refused("invalidSeed", "seed", says, min=0, max=LARGEST_SEED)


LITERALLY: tuple[Rule, ...] = (_known_parameters, _one_way, _limited_settings, _letters)

"""Runware's video inference reference, for models without rules of their own. Data (floor 1).

The page of 2025-10 speaks of all models at once, and some of its own examples break it. So what it
forbids is a warning here and an error in strict mode; only wrong types and what the platform
refuses whatever the model (`runware.VIDEO`) are errors at once.
"""

from submitter.rules.kinds import (
    ADVICE,
    LETTER,
    QUIET,
    AnyOf,
    Closed,
    Compared,
    Each,
    Exclusive,
    Factor,
    Given,
    Is,
    IsKind,
    Kind,
    Length,
    Media,
    Multiple,
    Not,
    Note,
    OneOf,
    Pattern,
    Range,
    Renamed,
    Required,
    Rule,
    RuleSet,
    When,
)
from submitter.rules.media import Sort
from submitter.rules.providers import PAGE, PROVIDER_SETTINGS
from submitter.rules.runware import REFERENCE, VIDEO

FRAMES = "inputs.frameImages"

# Voices of PixVerse's lip-sync, by their ids: Emily is 1.
VOICES = (*map(str, range(1, 15)), "auto")
VOICE_NAMES = (
    *("Emily", "James", "Isabella", "Liam", "Chloe", "Adrian", "Harper", "Ava"),
    *("Sophia", "Julia", "Mason", "Jack", "Oliver", "Ethan"),
)

# Named places, or the number of a frame of the video: it has duration × fps of them.
FRAME_PLACE: tuple[Rule, ...] = (
    Kind("frame", ("text", "integer")),
    When(IsKind("frame", "text"), (OneOf("frame", ("first", "last"), level=LETTER),)),
    When(
        IsKind("frame", "integer"),
        (
            Range("frame", 0, level=LETTER),
            Compared("frame", "less than", (Factor("duration"), Factor("fps", 24)), level=LETTER),
        ),
    ),
)

FRAME_IMAGES: tuple[Rule, ...] = (
    Kind(FRAMES, ("list",)),
    Renamed("frameImages", FRAMES, level=ADVICE),
    Each(
        FRAMES,
        (
            Kind("", ("text", "object")),
            When(IsKind("", "text"), (Media("", "image"),)),
            When(
                IsKind("", "object"),
                (
                    Required("image"),
                    Renamed("inputImage", "image", level=ADVICE),
                    Renamed("inputImages", "image", level=ADVICE),
                    Media("image", "image"),
                    *FRAME_PLACE,
                    Closed("", page=PAGE),
                ),
            ),
        ),
    ),
)


def _media_list(path: str, sort: Sort) -> tuple[Rule, ...]:
    return Kind(path, ("list",)), Each(path, (Media("", sort),))


MEDIA_INPUTS: tuple[Rule, ...] = (
    *FRAME_IMAGES,
    *_media_list("referenceImages", "image"),
    *_media_list("referenceVideos", "video"),
    *_media_list("inputAudios", "audio"),
)

# Models differ: the page requires a prompt and a duration, and its lip-sync example has neither.
GENERATION: tuple[Rule, ...] = (
    Required("positivePrompt", level=QUIET),
    Length("positivePrompt", 2),
    Length("negativePrompt", 2),
    Range("width", 256, 1920, level=LETTER),
    Multiple("width", 8, level=LETTER),
    Range("height", 256, 1080, level=LETTER),
    Multiple("height", 8, level=LETTER),
    # Newer pages have it in place of a size.
    Kind("resolution", ("text",)),
    Required("duration", level=QUIET),
    Range("duration", 1, 10, of="number", level=LETTER),
    Range("fps", 15, 60, level=LETTER),
    Range("steps", 10, 50, level=LETTER),
    Range("seed", 0),
    Range("seed", 1, 9_223_372_036_854_776_000, level=LETTER),
    Range("CFGScale", 0, 50, of="number", level=LETTER),
)

SPEECH: tuple[Rule, ...] = (
    Kind("speech", ("object",)),
    # The page lists ids, and its example sends a name.
    OneOf("speech.voice", (*VOICES, *VOICE_NAMES), of="text", level=LETTER),
    Length("speech.text", 1, 200, level=LETTER),
    Closed("speech", page=PAGE),
)

CACHE = "acceleratorOptions"
STEPS = (Factor("steps"),)

ACCELERATION: tuple[Rule, ...] = (
    OneOf("acceleration", ("none", "low", "medium", "high"), of="text", level=LETTER),
    Kind(CACHE, ("object",)),
    Kind(f"{CACHE}.teaCache", ("boolean",)),
    Range(f"{CACHE}.teaCacheDistance", 0, 1, of="number", level=LETTER),
    Kind(f"{CACHE}.fbCache", ("boolean",)),
    Range(f"{CACHE}.fbCacheThreshold", 0, 1, of="number", level=LETTER),
    Range(f"{CACHE}.cacheStartStep", 0, level=LETTER),
    Compared(f"{CACHE}.cacheStartStep", "at most", STEPS, level=LETTER),
    Range(f"{CACHE}.cacheStartStepPercentage", 0, 99, level=LETTER),
    Range(f"{CACHE}.cacheEndStep", 1, level=LETTER),
    Compared(
        f"{CACHE}.cacheEndStep", "more than", (Factor(f"{CACHE}.cacheStartStep"),), level=LETTER
    ),
    Compared(f"{CACHE}.cacheEndStep", "at most", STEPS, level=LETTER),
    Range(f"{CACHE}.cacheEndStepPercentage", 1, 100, level=LETTER),
    Compared(
        f"{CACHE}.cacheEndStepPercentage",
        "more than",
        (Factor(f"{CACHE}.cacheStartStepPercentage"),),
        level=LETTER,
    ),
    *(
        Exclusive(
            ((f"{CACHE}.{name}",), (f"{CACHE}.{name}Percentage",)),
            code="alternative_parameters",
            hint="They say the same in two ways.",
            level=LETTER,
        )
        for name in ("cacheStartStep", "cacheEndStep")
    ),
    Range(f"{CACHE}.cacheMaxConsecutiveSteps", 1, 5, level=LETTER),
    Closed(CACHE, page=PAGE),
)

LORA: tuple[Rule, ...] = (
    Kind("lora", ("list",)),
    Each(
        "lora",
        (
            Kind("", ("object",)),
            When(
                IsKind("", "object"),
                (
                    Required("model", level=LETTER),
                    Length("model", 1, level=LETTER),
                    Range("weight", -4, 4, of="number", level=LETTER),
                    OneOf("transformer", ("high", "low", "both"), of="text", level=LETTER),
                    Closed("", page=PAGE),
                ),
            ),
        ),
    ),
)

MARK = "advancedFeatures.watermark"
PLACES = tuple(
    f"{row}-{column}"
    for row in ("top", "center", "bottom")
    for column in ("left", "center", "right")
)
HEX_COLOUR = r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})"

WATERMARK: tuple[Rule, ...] = (
    Kind("advancedFeatures", ("object",)),
    Kind(MARK, ("object",)),
    Length(f"{MARK}.text", 2, 32, level=LETTER),
    Media(f"{MARK}.image", "image"),
    When(
        IsKind(MARK, "object"),
        (
            Exclusive(
                ((f"{MARK}.text",), (f"{MARK}.image",)),
                code="watermark_content",
                hint="A watermark is one or the other.",
                level=LETTER,
            ),
            When(
                Not(AnyOf((Given(f"{MARK}.text"), Given(f"{MARK}.image")))),
                (
                    Note(
                        MARK,
                        "watermark_content",
                        f"Add {MARK}.text or {MARK}.image: a watermark is one of them.",
                        level=LETTER,
                    ),
                ),
            ),
        ),
    ),
    OneOf(f"{MARK}.displayPosition", PLACES, of="text", level=LETTER),
    Kind(f"{MARK}.tiled", ("boolean",)),
    Range(f"{MARK}.opacity", 0.1, 1, of="number", level=LETTER),
    *(
        Pattern(f"{MARK}.{name}", HEX_COLOUR, "a colour such as #ffffff", level=LETTER)
        for name in ("fontColor", "bgColor")
    ),
    Closed(MARK, page=PAGE),
    Closed("advancedFeatures", page=PAGE),
)

UNKNOWN_MODEL = RuleSet(
    "Runware's video inference",
    (
        Kind("taskType", ("text",)),
        When(
            AnyOf((Not(Given("taskType")), Is("taskType", ("videoInference",)))),
            (
                *VIDEO,
                OneOf("deliveryMethod", ("async", "sync")),
                *GENERATION,
                *MEDIA_INPUTS,
                *SPEECH,
                *ACCELERATION,
                *LORA,
                *WATERMARK,
                *PROVIDER_SETTINGS,
                Closed("inputs", page=PAGE),
                Closed("", page=PAGE),
            ),
        ),
    ),
    REFERENCE,
)

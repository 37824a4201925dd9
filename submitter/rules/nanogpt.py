"""NanoGPT's generate-video and its extend flow, for any of its models. Data (floor 1).

Source: the page of generate-video, and for names that it leaves out the platform's OpenAPI file.
Which model takes which field is in the platform's list of models alone, so no model has rules of
its own here, and what the page forbids is of the letter.
"""

from submitter.rules.kinds import (
    ADVICE,
    LETTER,
    SILENT,
    AnyOf,
    Closed,
    Each,
    Exclusive,
    Given,
    JsonKind,
    Kind,
    Media,
    Not,
    Note,
    OneOf,
    Pattern,
    Range,
    Renamed,
    Required,
    Rule,
    RuleSet,
    Together,
    When,
)
from submitter.rules.media import Sort

PAGE = "NanoGPT's page"

# The platform takes no larger files inline; what is larger is given as a URL.
LARGEST_INLINE = 4_000_000

SOURCE_VIDEOS = ("video", "videoUrl", "videoDataUrl", "videoAttachmentId")
SOURCE_IMAGES = ("image", "imageUrl", "imageDataUrl", "imageAttachmentId")
SOURCE_SOUND = ("audio", "audioUrl", "audioDataUrl")
OTHER_MEDIA = ("reference_image", "referenceImages", "referenceVideos", "swapImage", "targetVideo")


def _kinds(kinds: tuple[JsonKind, ...], names: str) -> tuple[Rule, ...]:
    return tuple(Kind(name, kinds) for name in names.split())


FIELDS: tuple[Rule, ...] = (
    *_kinds(
        ("text",),
        "prompt negative_prompt script conversationUUID mode seconds aspect_ratio resolution size"
        " language projectId directorNotes interpolator_model movementAmplitude style effectType"
        " effect cameraMovement motionMode soundEffectPrompt voiceId voice_id voice music"
        " imageAttachmentId videoAttachmentId",
    ),
    *_kinds(
        ("boolean",),
        "animation generateAudio enhancePrompt pro_mode pro enable_prompt_expansion"
        " enable_safety_checker showExplicitContent camera_fix camera_fixed cameraFixed"
        " acceleration adjust_fps_for_interpolation prompt_optimizer soundEffectSwitch audioEnabled"
        " shortRequestEnhancer captionsShow",
    ),
    *_kinds(
        ("object",),
        "storyConfig scriptConfig imageConfig videoConfig voiceoverConfig captionsConfig"
        " effectsConfig musicConfig effects",
    ),
    *_kinds(("integer",), "targetLengthInWords targetLengthInSeconds num_interpolated_frames"),
    *_kinds(("number",), "guidance_scale shift videoDuration billedDuration audioDuration"),
    Kind("characters", ("list",)),
    Kind("motion", ("text", "object")),
    # The table has a text, an example of the platform a number.
    Kind("duration", ("text", "integer", "number")),
    Kind("seed", ("integer", "text")),
    Kind("num_frames", ("integer", "text")),
    Kind("targetFaceIndex", ("integer",)),
)

LIMITS: tuple[Rule, ...] = (
    Range("voice_speed", 0.8, 2.0, of="number", level=LETTER),
    Range("num_inference_steps", 1, 50, level=LETTER),
    Range("frames_per_second", 5, 24, level=LETTER),
    Range("age_slider", 18, 60, level=LETTER),
    Range("cfg_scale", 0, 20, of="number", level=LETTER),
    OneOf("orientation", ("landscape", "portrait"), of="text", level=LETTER),
    OneOf("voice_language", ("en", "zh"), of="text", level=LETTER),
    OneOf("video_quality", ("Standard", "High"), of="text", level=LETTER),
    OneOf("aspect", ("Portrait", "Landscape", "Square"), of="text", level=LETTER),
    OneOf("aspectRatio", ("9:16", "16:9"), of="text", level=LETTER),
    OneOf("quality", ("low", "medium", "high"), of="text", level=LETTER),
    OneOf(
        "framework",
        ("default", "emotional_story", "product_showcase", "tutorial"),
        of="text",
        level=LETTER,
    ),
    OneOf(
        "captionsStyle",
        (
            *("default", "minimal", "neon", "cinematic", "fancy", "tiktok", "highlight"),
            *("gradient", "instagram", "vida", "manuscripts"),
        ),
        of="text",
        level=LETTER,
    ),
    # One run has one outcome, and the platform has no such parameter.
    Range("numberResults", 1, 1),
)


def _inline(path: str, sort: Sort) -> Rule:
    return Media(path, sort, forms=("data",), most=LARGEST_INLINE)


def _any(path: str, sort: Sort) -> Rule:
    return Media(path, sort, most=LARGEST_INLINE)


def _list(path: str, sort: Sort) -> tuple[Rule, ...]:
    return Kind(path, ("list",)), Each(path, (_any("", sort),))


MEDIA_FIELDS: tuple[Rule, ...] = (
    Renamed("image_data_url", "imageDataUrl", level=ADVICE),
    _inline("imageDataUrl", "image"),
    _inline("videoDataUrl", "video"),
    _inline("audioDataUrl", "audio"),
    *(
        Pattern(name, r"https://[^\s/?#]+\S*", "an https URL", level=LETTER)
        for name in ("imageUrl", "videoUrl", "audioUrl")
    ),
    *(_any(name, "image") for name in ("image", "reference_image", "swapImage")),
    *(_any(name, "video") for name in ("video", "targetVideo")),
    _any("audio", "audio"),
    *_list("referenceImages", "image"),
    *_list("referenceVideos", "video"),
    # The platform takes what it finds first; which, it does not say of all.
    *(
        Exclusive(
            tuple((name,) for name in names),
            code="media_twice",
            hint="They are ways to give the same input.",
            level=ADVICE,
        )
        for names in (SOURCE_IMAGES, SOURCE_VIDEOS, SOURCE_SOUND)
    ),
)

# Spellings of one field; a model takes one of them.
SPELLINGS: tuple[Rule, ...] = tuple(
    Exclusive(
        tuple((name,) for name in names),
        code="alternative_parameters",
        hint="They are spellings of the same field.",
        level=ADVICE,
    )
    for names in (
        ("camera_fix", "camera_fixed", "cameraFixed"),
        ("pro_mode", "pro"),
        ("videoDuration", "billedDuration"),
    )
)

IS_EXTENSION = AnyOf((Given("runId"), Given("index")))
HAS_MEDIA = AnyOf(
    tuple(Given(name) for name in (*SOURCE_IMAGES, *SOURCE_VIDEOS, *SOURCE_SOUND, *OTHER_MEDIA))
)

FLOWS: tuple[Rule, ...] = (
    Renamed("taskId", "runId", level=ADVICE),
    Kind("runId", ("text",)),
    Range("index", 0, 3),
    Together(("runId", "index"), code="incomplete_extension"),
    Exclusive(
        (("runId",), SOURCE_VIDEOS),
        code="extension_with_video",
        hint="The run that is extended already is the source.",
    ),
    When(
        Not(IS_EXTENSION),
        (
            Required("model"),
            When(
                Not(AnyOf((Given("prompt"), Given("script"), Given("storyConfig"), HAS_MEDIA))),
                (
                    Note(
                        "prompt",
                        "missing_parameter",
                        "Add prompt, or for LongStories a script: the request has nothing to show.",
                    ),
                ),
            ),
        ),
    ),
)

UNKNOWN_MODEL = RuleSet(
    "NanoGPT's generate-video",
    (
        Kind("", ("object",)),
        Kind("model", ("text",)),
        Renamed("positivePrompt", "prompt", level=SILENT),
        Renamed("negativePrompt", "negative_prompt", level=SILENT),
        *FLOWS,
        *FIELDS,
        *LIMITS,
        *MEDIA_FIELDS,
        *SPELLINGS,
        Closed("", page=PAGE),
    ),
)

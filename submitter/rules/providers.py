"""providerSettings as Runware's reference page has them, for any model. Data (floor 1).

Which of its models take which setting a provider's own page says; here breaches are of the letter.
"""

from submitter.rules.kinds import (
    ADVICE,
    LETTER,
    AllOf,
    AnyOf,
    Closed,
    Exclusive,
    Given,
    Is,
    IsKind,
    Kind,
    Length,
    Matches,
    Not,
    Note,
    OneOf,
    Renamed,
    Rule,
    When,
)
from submitter.rules.pixverse import CAMERA_MOVEMENTS, EFFECTS, IS_1080P, IS_FAST, STYLES

PAGE = "the reference page"
AT = "providerSettings"
PIXVERSE = f"{AT}.pixverse"
VIDU = f"{AT}.vidu"
GOOGLE = f"{AT}.google"

# A model's identifier begins with its maker's name, and settings of another are refused.
PROVIDERS = ("google", "bytedance", "minimax", "pixverse", "vidu")

FOREIGN: tuple[Rule, ...] = tuple(
    When(
        AllOf((Given(f"{AT}.{provider}"), Not(Matches("model", rf"(?i:{provider}):.*")))),
        (
            Note(
                f"{AT}.{provider}",
                "foreign_settings",
                f"Leave out {AT}.{provider}: only models whose id begins with {provider}: take it.",
                level=LETTER,
            ),
        ),
    )
    for provider in PROVIDERS
)

# Veo's identifiers are those of Runware's list of models; the page speaks of Veo 2 and Veo 3.
GOOGLE_RULES: tuple[Rule, ...] = (
    Kind(GOOGLE, ("object",)),
    Kind(f"{GOOGLE}.enhancePrompt", ("boolean",)),
    Kind(f"{GOOGLE}.generateAudio", ("boolean",)),
    Closed(GOOGLE, page=PAGE),
    When(
        AllOf((Is(f"{GOOGLE}.enhancePrompt", (False,)), Matches("model", r"google:3@\d+"))),
        (
            Note(
                f"{GOOGLE}.enhancePrompt",
                "always_enhanced",
                "Leave out enhancePrompt: Veo 3 always rewrites the prompt.",
                level=LETTER,
            ),
        ),
    ),
    When(
        AllOf((Is(f"{GOOGLE}.generateAudio", (True,)), Matches("model", r"google:2@\d+"))),
        (
            Note(
                f"{GOOGLE}.generateAudio",
                "no_audio",
                "Leave out generateAudio, or take Veo 3: Veo 2 makes no sound.",
                level=LETTER,
            ),
        ),
    ),
)

BYTEDANCE_RULES: tuple[Rule, ...] = (
    Kind(f"{AT}.bytedance", ("object",)),
    Kind(f"{AT}.bytedance.cameraFixed", ("boolean",)),
    Closed(f"{AT}.bytedance", page=PAGE),
)

# The page's heading has minimax, its example miniMax.
MINIMAX_RULES: tuple[Rule, ...] = (
    Renamed(f"{AT}.miniMax", f"{AT}.minimax", level=ADVICE),
    Kind(f"{AT}.minimax", ("object",)),
    Kind(f"{AT}.minimax.promptOptimizer", ("boolean",)),
    Closed(f"{AT}.minimax", page=PAGE),
)

# audio, multiClip and thinking are on newer pages alone.
PIXVERSE_RULES: tuple[Rule, ...] = (
    Kind(PIXVERSE, ("object",)),
    OneOf(f"{PIXVERSE}.style", STYLES, of="text", level=LETTER),
    OneOf(f"{PIXVERSE}.effect", EFFECTS, of="text", level=LETTER),
    OneOf(f"{PIXVERSE}.cameraMovement", CAMERA_MOVEMENTS, of="text", level=LETTER),
    Exclusive(
        ((f"{PIXVERSE}.effect",), (f"{PIXVERSE}.cameraMovement",)),
        code="effect_with_camera_movement",
        hint="The model does one or the other.",
        level=LETTER,
    ),
    # The page's heading has motionmode, its example motionMode, and so have the newer pages.
    Renamed(f"{PIXVERSE}.motionmode", f"{PIXVERSE}.motionMode", level=ADVICE),
    OneOf(f"{PIXVERSE}.motionMode", ("normal", "fast"), of="text", level=LETTER),
    When(
        AllOf((IS_FAST, AnyOf((Is("duration", (8,)), IS_1080P)))),
        (
            Note(
                f"{PIXVERSE}.motionMode",
                "fast_reverts",
                "Set motionMode to normal: at 8 seconds or 1080p the platform does so by itself.",
                allowed=("normal",),
                level=LETTER,
            ),
        ),
    ),
    Kind(f"{PIXVERSE}.soundEffectSwitch", ("boolean",)),
    Length(f"{PIXVERSE}.soundEffectContent", 2, 2048, level=LETTER),
    Kind(f"{PIXVERSE}.watermark", ("boolean",)),
    Kind(f"{PIXVERSE}.audio", ("boolean",)),
    Kind(f"{PIXVERSE}.multiClip", ("boolean",)),
    Kind(f"{PIXVERSE}.thinking", ("text",)),
    Closed(PIXVERSE, page=PAGE),
)

HAS_MEDIA = AnyOf(
    (Given("inputs.frameImages"), Given("referenceImages"), Given("referenceVideos")),
)

VIDU_RULES: tuple[Rule, ...] = (
    Kind(VIDU, ("object",)),
    # The page's heading has movementamplitude, its example movementAmplitude.
    Renamed(f"{VIDU}.movementamplitude", f"{VIDU}.movementAmplitude", level=ADVICE),
    OneOf(
        f"{VIDU}.movementAmplitude",
        ("auto", "small", "medium", "large"),
        of="text",
        level=LETTER,
    ),
    Kind(f"{VIDU}.bgm", ("boolean",)),
    When(
        AllOf(
            (
                Is(f"{VIDU}.bgm", (True,)),
                IsKind("duration", "number"),
                Not(Is("duration", (4,))),
            )
        ),
        (
            Note(
                f"{VIDU}.bgm",
                "bgm_duration",
                "Set duration to 4, or leave out bgm: only videos of 4 seconds have music.",
                level=LETTER,
            ),
        ),
    ),
    OneOf(f"{VIDU}.style", ("general", "anime"), of="text", level=LETTER),
    When(
        AllOf((Given(f"{VIDU}.style"), HAS_MEDIA)),
        (
            Note(
                f"{VIDU}.style",
                "style_with_media",
                "Leave out style: it is for text to video alone.",
                level=LETTER,
            ),
        ),
    ),
    Closed(VIDU, page=PAGE),
)

PROVIDER_SETTINGS: tuple[Rule, ...] = (
    *GOOGLE_RULES,
    *BYTEDANCE_RULES,
    *MINIMAX_RULES,
    *PIXVERSE_RULES,
    *VIDU_RULES,
    *FOREIGN,
    Closed(AT, code="other_provider", page=PAGE),
)

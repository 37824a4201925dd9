"""PixVerse on Runware: what each model's page allows. Data (floor 1).

A new model is a new entry of MODELS. Where a page and its own examples disagree, the level LETTER
lets the example through with a warning.
"""

from submitter.rules.kinds import (
    ADVICE,
    LETTER,
    AllOf,
    AnyOf,
    AtLeast,
    Closed,
    Distinct,
    Each,
    Exclusive,
    Given,
    Is,
    IsKind,
    Kind,
    Length,
    Media,
    Not,
    Note,
    OneOf,
    Page,
    PairIn,
    Range,
    Renamed,
    Required,
    Rule,
    RuleSet,
    Table,
    Together,
    When,
)
from submitter.rules.media import LARGEST
from submitter.rules.runware import VIDEO

FRAMES = "inputs.frameImages"
SETTINGS = "providerSettings.pixverse"
SIZE = ("width", "height")

Sizes = tuple[tuple[int, int], ...]

# In the order 16:9, 4:3, 1:1, 3:4, 9:16.
SIZES_360: Sizes = ((640, 360), (480, 360), (360, 360), (360, 480), (360, 640))
SIZES_540: Sizes = ((960, 540), (720, 540), (540, 540), (540, 720), (540, 960))
SIZES_720: Sizes = ((1280, 720), (960, 720), (720, 720), (720, 960), (720, 1280))
SIZES_1080: Sizes = ((1920, 1080), (1440, 1080), (1080, 1080), (1080, 1440), (1080, 1920))
SIZES: Sizes = (*SIZES_360, *SIZES_540, *SIZES_720, *SIZES_1080)

# V3.5 has the same sizes but for 3:4.
SIZES_V3_5: Sizes = (
    *((640, 360), (480, 360), (360, 360), (270, 360), (360, 640)),
    *((960, 540), (720, 540), (540, 540), (405, 540), (540, 960)),
    *((1280, 720), (960, 720), (720, 720), (540, 720), (720, 1280)),
    *((1920, 1080), (1440, 1080), (1080, 1080), (810, 1080), (1080, 1920)),
)

STYLES = ("anime", "3d_animation", "clay", "comic", "cyberpunk")

CAMERA_MOVEMENTS = (
    *("horizontal_left", "horizontal_right", "vertical_up", "vertical_down"),
    *("zoom_in", "zoom_out", "auto_camera", "crane_up"),
    *("quickly_zoom_in", "quickly_zoom_out", "smooth_zoom_in", "camera_rotation"),
    *("robo_arm", "super_dolly_out", "whip_pan", "hitchcock"),
    *("left_follow", "right_follow", "pan_left", "pan_right", "fix_bg"),
)

EFFECTS = (
    *("bikini up", "the tigers touch", "jiggle jiggle", "hug your love", "kiss me ai"),
    *("subject 3 fever", "fin-tastic mermaid", "lets ymca", "skeleton dance", "kungfu club"),
    *("boom drop", "vroom vroom step", "creepy devil smile", "pubg winner hit", "360 microwave"),
    *("eye zoom challenge", "muscle surge", "punch face", "balloon belly", "kiss kiss"),
)

# Every setting some PixVerse model takes; a model that does not take it refuses it.
SETTING_RULES: dict[str, Rule] = {
    "style": OneOf(f"{SETTINGS}.style", STYLES),
    "effect": OneOf(f"{SETTINGS}.effect", EFFECTS),
    "cameraMovement": OneOf(f"{SETTINGS}.cameraMovement", CAMERA_MOVEMENTS),
    "motionMode": OneOf(f"{SETTINGS}.motionMode", ("normal", "fast")),
    "audio": Kind(f"{SETTINGS}.audio", ("boolean",)),
    "multiClip": Kind(f"{SETTINGS}.multiClip", ("boolean",)),
    "thinking": OneOf(f"{SETTINGS}.thinking", ("enabled", "disabled", "auto")),
}

# V3.5 alone has 810x1080; for the others the table refuses it.
IS_1080P = AnyOf((PairIn(SIZE, (*SIZES_1080, (810, 1080))), Is("resolution", ("1080p",))))
IS_FAST = Is(f"{SETTINGS}.motionMode", ("fast",))
HAS_SIZE = AnyOf((Given("width"), Given("height")))
HAS_FRAMES = Given(FRAMES)

FRAME_RULES: tuple[Rule, ...] = (
    Length(FRAMES, 0, 2, of="list", code="too_many_frames"),
    Renamed("frameImages", FRAMES),
    Each(
        FRAMES,
        (
            Kind("", ("text", "object")),
            When(IsKind("", "text"), (Length("", 1), Media("", "image", most=LARGEST))),
            When(
                IsKind("", "object"),
                (
                    Required("image"),
                    Length("image", 1),
                    Media("image", "image", most=LARGEST),
                    Renamed("inputImage", "image"),
                    Renamed("inputImages", "image"),
                    # The page types a frame as an object and lists texts and numbers.
                    OneOf("frame", ("first", "last", 0, -1), also=("0", "-1")),
                    Closed(""),
                ),
            ),
        ),
    ),
    Distinct(
        FRAMES,
        "frame",
        same=(("first", 0, "0"), ("last", -1, "-1")),
        code="duplicate_frame",
    ),
    Closed("inputs"),
)

SIZE_RULES: tuple[Rule, ...] = (
    Together(SIZE, code="unpaired_dimensions"),
    OneOf("resolution", ("360p", "540p", "720p", "1080p")),
    Exclusive(
        (SIZE, ("resolution",)),
        code="resolution_with_dimensions",
        hint="A resolution already decides the size.",
    ),
    # The page allows one of the two; most published examples send both.
    Exclusive(
        ((FRAMES,), SIZE),
        code="frames_with_dimensions",
        hint="The size follows from the frame images.",
        level=LETTER,
    ),
    When(
        Not(AnyOf((HAS_FRAMES, HAS_SIZE, Given("resolution")))),
        (
            Note(
                "width",
                "missing_dimensions",
                "Add width and height, or frame images to start from.",
            ),
        ),
    ),
    When(
        AllOf((Given("resolution"), Not(AnyOf((HAS_FRAMES, HAS_SIZE))))),
        (
            Note(
                "resolution",
                "resolution_only",
                "Send width and height instead: without frame images, the shape stays open.",
                level=LETTER,
            ),
        ),
    ),
)

PIXVERSE: tuple[Rule, ...] = (
    *VIDEO,
    OneOf("deliveryMethod", ("async",)),
    Required("positivePrompt"),
    Length("positivePrompt", 2, 2048),
    Length("negativePrompt", 2, 2048),
    # Only what is sent is capped: the platform answers with seeds beyond this.
    Range("seed", 0, 2_147_483_647),
    *FRAME_RULES,
    *SIZE_RULES,
    Closed("providerSettings", code="other_provider"),
    Kind(SETTINGS, ("object",)),
    Renamed(f"{SETTINGS}.motionmode", f"{SETTINGS}.motionMode"),
    Renamed(f"{SETTINGS}.soundEffectSwitch", None),
    Renamed(f"{SETTINGS}.soundEffectContent", None),
    Renamed(f"{SETTINGS}.watermark", None),
    Closed(SETTINGS),
    Closed(""),
)

# Rules that come with settings: they hold for a model that takes all of those named first.
RULES_WITH_SETTINGS: tuple[tuple[frozenset[str], tuple[Rule, ...]], ...] = (
    (
        frozenset({"effect", "cameraMovement"}),
        (
            Exclusive(
                ((f"{SETTINGS}.effect",), (f"{SETTINGS}.cameraMovement",)),
                code="effect_with_camera_movement",
                hint="The model does one or the other.",
            ),
        ),
    ),
    (
        frozenset({"effect"}),
        (
            When(
                AllOf((Given(f"{SETTINGS}.effect"), AtLeast(FRAMES, 2))),
                (
                    Note(
                        f"{SETTINGS}.effect",
                        "effect_with_last_frame",
                        "Leave out the last frame: effects are reported not to work with one.",
                        level=ADVICE,
                    ),
                ),
            ),
        ),
    ),
    (
        # An earlier page says that the platform makes `fast` into `normal` here, without telling.
        frozenset({"motionMode"}),
        (
            When(
                AllOf((IS_FAST, Is("duration", (8,)))),
                (
                    Note(
                        "duration",
                        "fast_duration",
                        "Set duration to 5, or motionMode to normal: fast motion has no 8.",
                        allowed=(5,),
                    ),
                ),
            ),
            When(
                AllOf((IS_FAST, IS_1080P)),
                (
                    Note(
                        f"{SETTINGS}.motionMode",
                        "fast_1080p",
                        "Set motionMode to normal, or choose 720p or less.",
                        allowed=("normal",),
                    ),
                ),
            ),
        ),
    ),
)

# The page ties these limits to any provider setting; its own examples break them.
SETTINGS_LIMITS: tuple[Rule, ...] = (
    When(
        AllOf((Given("providerSettings"), Not(IS_FAST), Is("duration", (8,)))),
        (
            Note(
                "duration",
                "provider_settings_duration",
                "Set duration to 5 to be safe: the page allows no other with providerSettings.",
                allowed=(5,),
                level=LETTER,
            ),
        ),
    ),
    When(
        AllOf((Given("providerSettings"), Not(IS_FAST), IS_1080P)),
        (
            Note(
                "providerSettings",
                "provider_settings_1080p",
                "Choose 720p or less to be safe: the page allows no more with providerSettings.",
                level=LETTER,
            ),
        ),
    ),
)

DOUBTFUL_8_S_1080P: tuple[Rule, ...] = (
    When(
        AllOf((IS_1080P, Is("duration", (8,)))),
        (
            Note(
                "duration",
                "doubtful_8s_1080p",
                "Prefer duration 5 at 1080p: another host of this model refuses 8.",
                level=ADVICE,
            ),
        ),
    ),
)

NO_10_S_1080P: tuple[Rule, ...] = (
    When(
        AllOf((IS_1080P, Is("duration", (10,)))),
        (
            Note(
                "duration",
                "duration_at_1080p",
                "Set duration to 5 or 8, or choose 720p or less: 10 seconds is too long at 1080p.",
                allowed=(5, 8),
            ),
        ),
    ),
    When(
        AllOf((HAS_FRAMES, Not(HAS_SIZE), Not(Given("resolution")), Is("duration", (10,)))),
        (
            Note(
                "duration",
                "duration_of_unknown_size",
                "Add resolution 720p or less: should the frames make it 1080p, 10 is too long.",
                level=ADVICE,
            ),
        ),
    ),
)


def _pixverse(
    model: str,
    name: str,
    settings: tuple[str, ...],
    *,
    page: str | None = None,
    durations: tuple[int, ...] = (5, 8),
    sizes: Sizes = SIZES,
    more: tuple[Rule, ...] = (),
) -> RuleSet:
    own: tuple[Rule, ...] = tuple(SETTING_RULES[setting] for setting in settings)
    refused = tuple(
        _refused(name, setting, settings) for setting in SETTING_RULES if setting not in settings
    )
    related = tuple(
        rule for needed, rules in RULES_WITH_SETTINGS if needed <= set(settings) for rule in rules
    )
    fixed: tuple[Rule, ...] = (
        OneOf("model", (model,), of="text"),
        OneOf("duration", durations),
        Table(SIZE, sizes, code="unsupported_dimensions"),
    )
    rules = (*PIXVERSE, *fixed, *own, *refused, *related, *more)
    return RuleSet(name, rules, None if page is None else _page(page))


def _page(slug: str) -> Page:
    frame = "request-inputs-frameimages-format-2"
    return Page(
        url=f"https://runware.ai/docs/models/{slug}",
        named={f"{FRAMES}.image": f"{frame}-image", f"{FRAMES}.frame": f"{frame}-frame"},
        without=frozenset({"inputs", "providerSettings", SETTINGS}),
    )


def _refused(name: str, setting: str, settings: tuple[str, ...]) -> Rule:
    path = f"{SETTINGS}.{setting}"
    advice = f"Leave out {path}: {name} takes only {', '.join(settings)}."
    return When(Given(path), (Note(path, "unsupported_parameter", advice),))


WITH_CAMERA = ("style", "effect", "cameraMovement", "motionMode")
WITHOUT_CAMERA = ("style", "effect", "motionMode")

# V5.6 (1@7) and V6 (1@8) exist; we have no page of theirs, so they have no rules.
MODELS: dict[str, RuleSet] = {
    "pixverse:1@1": _pixverse("pixverse:1@1", "PixVerse V3.5", WITHOUT_CAMERA, sizes=SIZES_V3_5),
    "pixverse:1@2": _pixverse(
        "pixverse:1@2",
        "PixVerse V4",
        WITH_CAMERA,
        page="pixverse-v4",
        more=(*SETTINGS_LIMITS, *DOUBTFUL_8_S_1080P),
    ),
    "pixverse:1@3": _pixverse("pixverse:1@3", "PixVerse V4.5", WITH_CAMERA, more=SETTINGS_LIMITS),
    "pixverse:1@5": _pixverse("pixverse:1@5", "PixVerse V5", WITHOUT_CAMERA),
    "pixverse:1@5-fast": _pixverse("pixverse:1@5-fast", "PixVerse V5 Fast", WITHOUT_CAMERA),
    "pixverse:1@6": _pixverse(
        "pixverse:1@6",
        "PixVerse V5.5",
        ("style", "audio", "multiClip", "thinking"),
        page="pixverse-v5-5",
        durations=(5, 8, 10),
        more=NO_10_S_1080P,
    ),
}

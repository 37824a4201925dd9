"""Runware's `videoInference` as typed requests (floor 0, pure).

Source: the video inference reference of 2025-10 and the pages of PixVerse V4 and V5.5. Former names
are here too; `submitter.rules.modern` writes the present ones in their place.
"""

from typing import ClassVar

from submitter.requests.wire import Media, Number, Request, Shape


class FrameImage(Shape):
    """An image that one frame of the video has to match."""

    image: Media | None = None
    """The image."""
    frame: str | int | None = None
    """Its place: `first`, `last` or the number of a frame."""
    inputImage: Media | None = None
    """Former name of `image`."""
    inputImages: Media | None = None
    """Former name of `image`."""


class Inputs(Shape):
    """Media that the video is made from."""

    frameImages: list[Media | FrameImage] | None = None
    """Images that single frames have to match; without a place they are spread evenly."""


class Safety(Shape):
    """Whether what is generated is looked at for what is unfit."""

    checkContent: bool | None = None
    """Look at it; means the mode `fast`."""
    mode: str | None = None
    """How closely; wins over `checkContent`."""


class Speech(Shape):
    """A text to be spoken."""

    voice: str | None = None
    """Id of the voice."""
    text: str | None = None
    """What it says."""


class Watermark(Shape):
    """A mark on the video: either a text or an image."""

    text: str | None = None
    """The mark as a text."""
    image: Media | None = None
    """The mark as an image."""
    displayPosition: str | None = None
    """Where it stands, such as `bottom-right`."""
    tiled: bool | None = None
    """Whether it is repeated, aslant, all over the video."""
    opacity: Number | None = None
    """How opaque it is; 1 hides what is behind it."""
    fontColor: str | None = None
    """Colour of the text, as `#ffffff`."""
    bgColor: str | None = None
    """Colour behind the text; none by default."""


class AdvancedFeatures(Shape):
    """Features that only some requests need."""

    watermark: Watermark | None = None
    """A mark on the video."""


class AcceleratorOptions(Shape):
    """Caches that trade quality for speed."""

    teaCache: bool | None = None
    """Reuse past computations (transformer models)."""
    teaCacheDistance: Number | None = None
    """How readily TeaCache does: 0 is careful, 1 is fast."""
    fbCache: bool | None = None
    """Reuse the first transformer block's output where it changes little."""
    fbCacheThreshold: Number | None = None
    """How readily that is done: 0 is careful, 1 is fast."""
    cacheStartStep: int | None = None
    """Step at which caching begins."""
    cacheStartStepPercentage: int | None = None
    """The same in percent of all steps."""
    cacheEndStep: int | None = None
    """Step at which caching ends."""
    cacheEndStepPercentage: int | None = None
    """The same in percent of all steps."""
    cacheMaxConsecutiveSteps: int | None = None
    """How many steps in a row may come out of the cache."""


class Lora(Shape):
    """An adaptation of the model."""

    model: str
    """AIR identifier of the adaptation."""
    weight: Number | None = None
    """How strong it is; below 0 it works against."""
    transformer: str | None = None
    """Which stages it applies to, in models that have two."""


class GoogleSettings(Shape):
    """Settings of Google's Veo models."""

    enhancePrompt: bool | None = None
    """Let the platform rewrite the prompt; Veo 3 always does."""
    generateAudio: bool | None = None
    """Make sound too; Veo 3 alone does."""


class ByteDanceSettings(Shape):
    """Settings of ByteDance's models."""

    cameraFixed: bool | None = None
    """Keep the camera where it is."""


class MiniMaxSettings(Shape):
    """Settings of MiniMax's models."""

    promptOptimizer: bool | None = None
    """Let the platform rewrite the prompt."""


class PixVerseSettings(Shape):
    """Settings of PixVerse's models; which model takes which is in the rules."""

    style: str | None = None
    """Look of the video."""
    effect: str | None = None
    """Effect template; excludes `cameraMovement`."""
    cameraMovement: str | None = None
    """How the camera moves; excludes `effect`."""
    motionMode: str | None = None
    """How fast things move."""
    audio: bool | None = None
    """Make sound too."""
    multiClip: bool | None = None
    """Cut between camera angles."""
    thinking: str | None = None
    """How much the model reasons first."""
    motionmode: str | None = None
    """Former spelling of `motionMode`."""
    soundEffectSwitch: bool | None = None
    """Sound, on earlier pages."""
    soundEffectContent: str | None = None
    """What is heard, on earlier pages."""
    watermark: bool | None = None
    """PixVerse's own mark, in an example of an earlier page."""


class ViduSettings(Shape):
    """Settings of Vidu's models."""

    movementAmplitude: str | None = None
    """How much moves."""
    bgm: bool | None = None
    """Add music; only videos of 4 seconds have any."""
    style: str | None = None
    """Look of the video; only for text to video."""
    movementamplitude: str | None = None
    """`movementAmplitude`, as the page's heading spells it."""


class ProviderSettings(Shape):
    """Settings of the model's maker."""

    google: GoogleSettings | None = None
    """For Veo."""
    bytedance: ByteDanceSettings | None = None
    """For ByteDance's models."""
    minimax: MiniMaxSettings | None = None
    """For MiniMax's models."""
    miniMax: MiniMaxSettings | None = None
    """`minimax`, as the page's example spells it."""
    pixverse: PixVerseSettings | None = None
    """For PixVerse."""
    vidu: ViduSettings | None = None
    """For Vidu."""


class VideoInference(Request):
    """One `videoInference` task of Runware."""

    platform: ClassVar[str] = "runware"

    model: str
    """AIR identifier, `provider:id@version`."""
    taskType: str | None = None
    """`videoInference`; filled in for you."""
    taskUUID: str | None = None
    """Id of the task; made for you."""
    outputType: str | None = None
    """How the video is handed over."""
    outputFormat: str | None = None
    """Container of the video."""
    outputQuality: int | None = None
    """Quality of the compression."""
    webhookURL: str | None = None
    """Where callbacks go; signed and filled in for you."""
    deliveryMethod: str | None = None
    """`async`; filled in for you."""
    uploadEndpoint: str | None = None
    """URL that the video is PUT to, such as a presigned one of a bucket."""
    safety: Safety | None = None
    """Whether the video is looked at for what is unfit."""
    ttl: int | None = None
    """Seconds after which the platform deletes the video."""
    includeCost: bool | None = None
    """Report what it cost; filled in for you."""
    numberResults: int | None = None
    """How many videos, each with its own seed."""
    positivePrompt: str | None = None
    """What the video shows."""
    negativePrompt: str | None = None
    """What it must not show."""
    inputs: Inputs | None = None
    """Media that the video is made from."""
    frameImages: list[Media | FrameImage] | None = None
    """Former place of `inputs.frameImages`."""
    referenceImages: list[Media] | None = None
    """Images that guide the look of the whole video."""
    referenceVideos: list[Media] | None = None
    """Videos that guide look and motion."""
    inputAudios: list[Media] | None = None
    """Sound that drives the video, such as speech for lip-sync."""
    width: int | None = None
    """Pixels across."""
    height: int | None = None
    """Pixels down."""
    resolution: str | None = None
    """Size as a preset; the shape follows from the frame images."""
    duration: Number | None = None
    """Seconds."""
    fps: int | None = None
    """Frames a second."""
    steps: int | None = None
    """Denoising steps."""
    seed: int | None = None
    """The same seed makes the same video again."""
    CFGScale: Number | None = None
    """How closely the prompt is followed."""
    speech: Speech | None = None
    """A text to be spoken."""
    acceleration: str | None = None
    """Preset of `acceleratorOptions`, steps and scheduler."""
    acceleratorOptions: AcceleratorOptions | None = None
    """Caches that trade quality for speed."""
    advancedFeatures: AdvancedFeatures | None = None
    """Such as a watermark."""
    lora: list[Lora] | None = None
    """Adaptations of the model."""
    providerSettings: ProviderSettings | None = None
    """Settings of the model's maker."""

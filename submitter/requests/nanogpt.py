"""NanoGPT's `generate-video` as a typed request (floor 0, pure).

Source: the page of generate-video; names that it describes without spelling them are those of the
platform's OpenAPI file. Which field a model takes is in the platform's list of models alone.
"""

from typing import Any, ClassVar

from submitter.requests.wire import Media, Number, Request


class GenerateVideo(Request):
    """One request of NanoGPT: a generation, or the extension of a Midjourney run by `runId`."""

    platform: ClassVar[str] = "nanogpt"

    # What every model may take.
    model: str = ""
    """Id of the model; only an extension by `runId` goes without."""
    prompt: str | None = None
    """What the video shows."""
    negative_prompt: str | None = None
    """What it must not show."""
    conversationUUID: str | None = None
    """Thread that the request belongs to."""
    mode: str | None = None
    """What is done, such as `image-to-video`, or a choice of the model's own."""
    duration: str | int | None = None
    """Seconds, in the model's own spelling: `5`, `5s`."""
    seconds: str | None = None
    """Seconds, for Sora."""
    aspect_ratio: str | None = None
    """Shape, such as `16:9`."""
    orientation: str | None = None
    """`landscape` or `portrait`, for Sora and Wan."""
    resolution: str | None = None
    """Size, such as `720p`."""
    size: str | None = None
    """Size as a preset of the model."""
    seed: int | str | None = None
    """The same seed makes the same video again, where a model has seeds."""
    generateAudio: bool | None = None
    """Make sound too."""
    enhancePrompt: bool | None = None
    """Let the platform rewrite the prompt (Veo 3)."""
    enable_prompt_expansion: bool | None = None
    """Let the platform rewrite the prompt (Wan, Seedance, MiniMax)."""
    prompt_optimizer: bool | None = None
    """Let the platform rewrite the prompt (MiniMax)."""
    enable_safety_checker: bool | None = None
    """Look for what is unfit."""
    showExplicitContent: bool | None = None
    """Allow what is explicit."""
    pro_mode: bool | None = None
    """Higher quality (Sora, Hunyuan)."""
    pro: bool | None = None
    """Another spelling of `pro_mode`."""
    camera_fix: bool | None = None
    """Keep the camera where it is (Seedance, Wan)."""
    camera_fixed: bool | None = None
    """Another spelling of `camera_fix`."""
    cameraFixed: bool | None = None
    """Another spelling of `camera_fix`."""
    acceleration: bool | None = None
    """Be faster."""

    # Media. Send those that the model asks for, and no other.
    imageDataUrl: Media | None = None
    """Source image, inline."""
    image_data_url: Media | None = None
    """Another spelling of `imageDataUrl`."""
    imageUrl: str | None = None
    """Source image, by https; for what is larger than 4 MB."""
    imageAttachmentId: str | None = None
    """Source image in the library."""
    image: Media | None = None
    """Source image, for models that ask for this name."""
    reference_image: Media | None = None
    """Still that guides the look (Runway)."""
    referenceImages: list[Media] | None = None
    """Images that guide the look."""
    referenceVideos: list[Media] | None = None
    """Videos that guide look and motion."""
    audioDataUrl: Media | None = None
    """Sound, inline."""
    audioUrl: str | None = None
    """Sound, by https."""
    audio: Media | None = None
    """Sound, for models that ask for this name."""
    audioDuration: Number | None = None
    """Seconds of the sound."""
    videoUrl: str | None = None
    """Source video, by https."""
    videoDataUrl: Media | None = None
    """Source video, inline."""
    videoAttachmentId: str | None = None
    """Source video in the library."""
    video: Media | None = None
    """Source video, for models that ask for this name."""
    swapImage: Media | None = None
    """Face to put in."""
    targetVideo: Media | None = None
    """Video to put it into."""
    targetFaceIndex: int | None = None
    """Which face is replaced."""

    # What single families of models take.
    num_frames: int | str | None = None
    """Frames of the video."""
    frames_per_second: int | None = None
    """Frames a second."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    guidance_scale: Number | None = None
    """How closely the prompt is followed (Wan)."""
    cfg_scale: Number | None = None
    """How closely the prompt is followed (Kling)."""
    shift: Number | None = None
    """Noise schedule shift (Wan)."""
    interpolator_model: str | None = None
    """What makes frames in between."""
    num_interpolated_frames: int | None = None
    """How many it makes."""
    adjust_fps_for_interpolation: bool | None = None
    """Count them in the frame rate."""
    videoDuration: Number | None = None
    """Seconds to bill, for upscalers."""
    billedDuration: Number | None = None
    """Another spelling of `videoDuration`."""
    movementAmplitude: str | None = None
    """How much moves."""
    motion: str | dict[str, Any] | None = None
    """How much moves; an object for LongStories, formerly."""
    style: str | None = None
    """Look of the video."""
    effectType: str | None = None
    """Kind of effect (PixVerse)."""
    effect: str | None = None
    """Effect template (PixVerse)."""
    cameraMovement: str | None = None
    """How the camera moves (PixVerse)."""
    motionMode: str | None = None
    """How fast things move (PixVerse)."""
    soundEffectSwitch: bool | None = None
    """Make sound too (PixVerse)."""
    soundEffectPrompt: str | None = None
    """What is heard (PixVerse)."""
    voiceId: str | None = None
    """Voice, for lip-sync; for LongStories, formerly."""
    voice_id: str | None = None
    """Voice (Kling lip-sync)."""
    voice_language: str | None = None
    """Language of the voice (Kling lip-sync)."""
    voice_speed: Number | None = None
    """How fast it speaks (Kling lip-sync)."""
    age_slider: int | None = None
    """Age (PromptChan)."""
    audioEnabled: bool | None = None
    """Make sound too (PromptChan)."""
    video_quality: str | None = None
    """Quality (PromptChan)."""
    aspect: str | None = None
    """Shape, by name (PromptChan)."""

    # LongStories.
    script: str | None = None
    """Whole script of a LongStories video; wins over `prompt`."""
    storyConfig: dict[str, Any] | None = None
    """Scenes, narration and voice of one."""
    animation: bool | None = None
    """Move the pictures."""
    language: str | None = None
    """Language it is told in."""
    characters: list[Any] | None = None
    """Who is in it."""
    projectId: str | None = None
    """Project of the story."""
    framework: str | None = None
    """How the story is built."""
    shortRequestEnhancer: bool | None = None
    """Let the platform choose that, and add notes."""
    targetLengthInWords: int | None = None
    """Length, formerly."""
    targetLengthInSeconds: int | None = None
    """Length."""
    directorNotes: str | None = None
    """Prompt for the pictures."""
    aspectRatio: str | None = None
    """Shape of the story."""
    scriptConfig: dict[str, Any] | None = None
    """Script."""
    imageConfig: dict[str, Any] | None = None
    """Pictures."""
    videoConfig: dict[str, Any] | None = None
    """Motion."""
    voiceoverConfig: dict[str, Any] | None = None
    """Narration."""
    captionsConfig: dict[str, Any] | None = None
    """Captions."""
    effectsConfig: dict[str, Any] | None = None
    """Transitions."""
    musicConfig: dict[str, Any] | None = None
    """Music."""
    voice: str | None = None
    """Voice of the narration, formerly."""
    captionsShow: bool | None = None
    """Captions, formerly."""
    captionsStyle: str | None = None
    """Look of the captions, formerly."""
    effects: dict[str, Any] | None = None
    """Transitions, formerly."""
    quality: str | None = None
    """Quality, formerly."""
    music: str | None = None
    """Music, formerly."""

    # The extend flow.
    runId: str | None = None
    """Run to extend (Midjourney); goes with `index` and without a source video."""
    taskId: str | None = None
    """Former name of `runId`."""
    index: int | None = None
    """Which of its four videos."""

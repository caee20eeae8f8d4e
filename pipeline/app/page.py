"""What is on the page of `scripts/app.py`, and what its buttons do."""

import contextlib
import html
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from models.device import is_out_of_memory
from pipeline.app import explore
from pipeline.app.compare import ARMS
from pipeline.app.options import SCENE
from pipeline.drawing.overlay import OPACITY

TITLES = {"bilinear": "Without LoftUp", "loftup": "With LoftUp"}
ABOUT = {
    True: "These small models (`tiny`) know only drawn scenes such as the bundled one. For "
    "photographs, start the page with `--preset vit-b16`.",
    False: "CLIP, LoftUp and SAM 2 find what your words say.",
}
HINT = "Click a mask to see its class, score and prompt point."
CSS = """
.gradio-container {width: 100%; max-width: 1700px !important; margin: auto}
.gradio-container .app {padding: 16px !important}
.picture img {cursor: crosshair}
#chosen table, #chosen tr, #chosen td {border: none !important}
#chosen td {padding: 1px 14px 1px 0 !important; vertical-align: top}
#chosen td:first-child {white-space: nowrap; opacity: 0.7}
#chosen h4 {margin: 0 0 4px 0}
#files .stem {white-space: normal; overflow-wrap: anywhere; text-overflow: clip}
#files td {padding: 4px; width: auto; min-width: 0}
/* A message says what is wrong; what was found before stays in sight. */
[data-testid="status-tracker"]:has(> .error) {display: none !important}
"""
# On a phone the pictures are far below the button.
SHOW = "() => document.querySelector('#count-bilinear').scrollIntoView({block: 'nearest'})"


class _Toasts(logging.Handler):
    """Shows warnings to the visitor whose question they are about."""

    def emit(self, record: logging.LogRecord) -> None:
        gr.Warning(html.escape(record.getMessage()))


def build(explorer: explore.Explorer, preset: str, folder: Path) -> gr.Blocks:
    """The page; all that it computes is `explorer`'s. What it writes goes into `folder`."""
    logging.getLogger("models.vocabulary").addHandler(_Toasts(logging.WARNING))
    with gr.Blocks(
        title="Masks for everything you name", analytics_enabled=False,
        delete_cache=(3600, 86400), fill_width=True,
    ) as blocks:  # fmt: skip
        _Page(explorer, preset, folder).connect()
    return blocks


def _refusal(message: str) -> gr.Error:
    return gr.Error(html.escape(message), print_exception=False)


@contextlib.contextmanager
def _told(image: str) -> Iterator[None]:
    """Within, what goes wrong is said on the page; other errors are bugs."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise _refusal(str(error).replace(image, Path(image).name)) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise _refusal("Out of memory: take a smaller image or fewer words.") from error


class _Page:
    """What is on the page; below, what happens when it is used: new values of its parts."""

    def __init__(self, explorer: explore.Explorer, preset: str, folder: Path) -> None:
        self.explorer, self.folder = explorer, folder
        self.question = gr.State(None, time_to_live=86400, delete_callback=self.leave)
        self.clicked_mask = gr.State(None)  # arm and number
        gr.Markdown(f"## Masks for everything you name\n{ABOUT[preset == 'tiny']}")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self._add_questions()
            with gr.Column(scale=4, min_width=320):
                self._add_answers()
        self.controls = [self.loftup, self.confidence, self.opacity]
        self.view = [*self.columns.values(), *self.pictures.values(), *self.counts.values()]
        self.untouched = {
            self.chosen: HINT, self.files: gr.update(value=None, visible=False),
            self.clicked_mask: None,
        }  # fmt: skip

    def _add_questions(self) -> None:
        self.file = gr.Image(
            str(SCENE.path), label="Image", type="filepath", image_mode=None,
            sources=["upload", "clipboard"], height=240, buttons=[],
        )  # fmt: skip
        # The file as it is: `models.images` reads more kinds, and says what is wrong.
        self.file.preprocess = lambda payload: payload and payload.path
        self.bundled = gr.Button("Take the bundled image", size="sm")
        self.text = gr.Textbox(
            " ".join(SCENE.words), label="Words",
            info='Spaces between classes, commas between synonyms: '
            'person "traffic light" sofa,couch',
        )  # fmt: skip
        self.loftup = gr.Checkbox(True, label="LoftUp: show its result beside the plain one")
        with gr.Accordion("More options", open=False):
            self.others = gr.Textbox(
                label="Not these",
                info="They compete with your words, but are left out of the result: "
                'bus "sign,billboard"',
            )
            self.own = gr.Textbox(
                label="Least confidence of some classes",
                info="Instead of the slider's: person=0.6 car=0.3. Enter applies it.",
            )
        self.start = gr.Button("Segment", variant="primary")
        self.confidence = gr.Slider(
            0, 1, self.explorer.confidence, step=0.01, label="Confidence",
            info="Higher: fewer, surer masks", buttons=[],
        )  # fmt: skip
        self.opacity = gr.Slider(0, 1, OPACITY, step=0.01, label="Opacity", buttons=[])

    def _add_answers(self) -> None:
        self.columns, self.pictures, self.counts = {}, {}, {}  # by arm
        with gr.Row():
            for arm in ARMS:
                with gr.Column(min_width=320) as self.columns[arm]:
                    self.pictures[arm] = gr.Image(
                        label=TITLES[arm], interactive=False, format="png",
                        elem_classes="picture", buttons=["fullscreen"], elem_id=arm,
                    )  # fmt: skip
                    self.counts[arm] = gr.HTML(elem_id=f"count-{arm}")
        self.chosen = gr.HTML(HINT, elem_id="chosen", label="Chosen mask", container=True)
        self.make = gr.Button("Make files to download: picture, JSON, label PNG", size="sm")
        self.files = gr.File(label="Files", file_count="multiple", visible=False, elem_id="files")

    def connect(self) -> None:
        """Say which part does what."""
        typed, asked = [self.file, self.text, self.others, self.own], [self.question]
        asks = [self.start.click, self.text.submit, self.others.submit, self.own.submit]
        pictures = [*self.pictures.values()]
        gr.on(asks, None, js=SHOW)
        gr.on(
            asks, self.segment, [*typed, *asked, *self.controls],
            [*asked, *self.view, *self.untouched], trigger_mode="always_last",
            show_progress_on=pictures,
        )  # fmt: skip
        self.bundled.click(lambda: (str(SCENE.path), " ".join(SCENE.words), "", ""), None, typed)
        gr.on(
            [self.confidence.input, self.loftup.input], self.change, [*asked, *self.controls],
            [*self.view, *self.untouched], trigger_mode="always_last", show_progress="minimal",
            show_progress_on=pictures,
        )  # fmt: skip
        self.opacity.input(
            self.shown, [*asked, *self.controls, self.clicked_mask], self.view,
            trigger_mode="always_last", show_progress="hidden",
        )  # fmt: skip
        for arm in ARMS:
            self.pictures[arm].select(
                self.click(arm), [*asked, *self.controls],
                [*self.view, self.chosen, self.clicked_mask], show_progress="hidden",
            )  # fmt: skip
        self.make.click(
            self.make_files, [*asked, self.loftup, self.confidence], self.files,
            show_progress="minimal", show_progress_on=pictures,
        )  # fmt: skip

    def look(self, asked: explore.Question, arm: str, confidence: float) -> tuple[Any, Any]:
        """Image and masks."""
        with _told(asked.image):
            return self.explorer.look(asked, arm, confidence)

    def shown(
        self, asked: explore.Question | None, loftup: bool, confidence: float, opacity: float,
        clicked: tuple[str, int] | None = None,
    ) -> dict[Any, Any]:  # fmt: skip
        """The pictures, and what is said below them."""
        values: dict[Any, Any] = {self.columns["loftup"]: gr.update(visible=loftup)}
        if asked is None:
            return values
        for arm in ARMS[: 1 + loftup]:
            image, found = self.look(asked, arm, confidence)
            selected = clicked[1] if clicked and clicked[0] == arm else None
            values[self.pictures[arm]] = explore.draw(image, found, opacity, selected)
            values[self.counts[arm]] = explore.summary(found)
        return values

    def segment(
        self, file: str | None, text: str, others: str | None, own: str | None,
        last: explore.Question | None, loftup: bool, confidence: float, opacity: float,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        if not file:
            raise _refusal("Drop an image first, or take the bundled one.")
        visitor = last.visitor if last else uuid.uuid4().hex
        with _told(file):
            # None comes of fields that were never unfolded.
            asked = explore.Question.typed(visitor, file, text, others or "", own or "")
        yield self.shown(asked, False, confidence, opacity) | {
            self.question: asked, self.columns["loftup"]: gr.update(visible=loftup),
            self.pictures["loftup"]: None, self.counts["loftup"]: "LoftUp takes longer …",
            **self.untouched,
        }  # fmt: skip
        if loftup:  # takes longest: what is there already is shown
            yield self.shown(asked, True, confidence, opacity)

    def change(self, *controls: Any) -> dict[Any, Any]:
        """Another confidence, or LoftUp switched: other masks, so that none is chosen."""
        return self.shown(*controls) | self.untouched

    def click(self, arm: str) -> Callable[..., dict[Any, Any]]:
        """What a click on the picture of an arm does."""

        def clicked(asked: Any, loftup: bool, sure: float, fade: float, at: gr.SelectData) -> Any:
            if asked is None:
                return {self.chosen: HINT}
            _, found = self.look(asked, arm, sure)
            index = explore.mask_at(found, tuple(at.index))
            mask = None if index is None else (arm, index)
            said = "No mask there." if index is None else explore.describe(found, index)
            view = self.shown(asked, loftup, sure, fade, mask)
            return view | {self.chosen: said, self.clicked_mask: mask}

        return clicked

    def make_files(self, asked: explore.Question | None, loftup: bool, confidence: float) -> Any:
        if asked is None:
            raise _refusal("Nothing to download yet: segment an image first.")
        written = []
        for arm in ARMS[: 1 + loftup]:
            image, found = self.look(asked, arm, confidence)
            name = f"{Path(asked.image).stem}_{arm}"
            with _told(asked.image):
                written += explore.save_files(self.folder / asked.visitor, name, image, found)
        return gr.update(value=written, visible=True)

    def leave(self, asked: explore.Question | None) -> None:
        if asked:
            self.explorer.leave(asked.visitor)
            shutil.rmtree(self.folder / asked.visitor, ignore_errors=True)

"""A page to try words on pictures: python scripts/app.py, then open http://127.0.0.1:7860.

    python scripts/app.py                        # the small shipped models, without network
    python scripts/app.py --preset vit-b16       # for photographs

Needs the package gradio (pip install 'gradio>=6'). The page is served to this machine only unless
--host says otherwise; it asks nothing of the network.
"""

import argparse
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import NoReturn

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.app.options import SCENE, Parser, run_main


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "--preset", default="tiny",
        help="vit-b16 for photographs, or tiny, which knows drawn scenes only (default: tiny)",
    )  # fmt: skip
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, for "
        "this machine only; 0.0.0.0: for everybody who reaches it)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    parser.add_argument(
        "--max-upload-mb", type=int, default=20, help="largest image file (default: %(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="log more; tracebacks of errors")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return run_main(_run, parse(argv))


def _run(args: argparse.Namespace) -> int:
    if not 0 < args.port < 65536:
        raise ValueError(f"--port must be 1…65535, got {args.port}")
    if args.max_upload_mb < 1:
        raise ValueError(f"--max-upload-mb must be at least 1, got {args.max_upload_mb}")
    _check_address(args.host, args.port)
    # For all files of visitors, which are to be gone when the program ends.
    with tempfile.TemporaryDirectory(prefix="masks", ignore_cleanup_errors=True) as folder:
        # Both are read when gradio is imported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        _start(args, Path(folder))
        threading.Event().wait()  # not gradio's own way, which does not say what ended it
    return 0


def _start(args: argparse.Namespace, folder: Path) -> None:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(f"no gradio ({error}); run: pip install 'gradio>=6'") from error
    from pipeline.app.explore import Explorer
    from pipeline.app.page import CSS, build
    from pipeline.segmenter import Segmenter

    explorer = Explorer(Segmenter.from_preset(args.preset, use_loftup=True, device=args.device))
    page = build(explorer, args.preset, folder)
    page.launch(
        server_name=args.host,
        server_port=args.port,
        max_file_size=args.max_upload_mb * 2**20,
        # System fonts: gradio's own themes fetch theirs from Google. Its hints are hard to read.
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
            block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400"
        ),
        css=CSS,
        allowed_paths=[str(SCENE.path)],
        footer_links=[],
        share=False,
        ssr_mode=False,
        quiet=not args.verbose,
        _frontend=False,  # no look at the own page: gradio would give up on a busy machine in 3 s
        prevent_thread_lock=True,
    )
    print(f"the page is at {page.local_url} (Ctrl-C ends it)", flush=True)


def _check_address(host: str, port: int) -> None:
    """Refuse before the models are loaded what could not be listened on after it."""
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        with socket.socket(family) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            one.bind((host, port))
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}, port {port} ({error.strerror}); "
            "give another --port or --host"
        ) from error


def command() -> NoReturn:
    os._exit(main())  # at once: for what threads of the server still compute nobody waits


if __name__ == "__main__":
    command()

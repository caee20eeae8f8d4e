"""Fetch the weights of a preset ahead, e.g. for a machine without network.

    python scripts/download_weights.py --preset vit-b16
    python scripts/download_weights.py --preset vit-b16 --model-cfg sam2.1_hiera_t.yaml

They go to the Hugging Face cache (HF_HOME, HF_HUB_CACHE), where everything else looks for them.
Files that are already there are only checked.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from models.presets import Preset, Source


def preset_sources(preset: Preset, model_cfg: str | None = None) -> dict[str, Source]:
    """What a preset is made of, and where each part comes from.

    Args:
        preset: see `models.presets`.
        model_cfg: another SAM 2 configuration than the preset's.

    Raises:
        ValueError: unknown configuration, or one without a published checkpoint.
    """
    from models.presets import LOFTUPS, Source
    from models.weights import sam2_source

    loftup = LOFTUPS.get(str(preset.loftup))
    return {
        "CLIP": preset.clip.source,
        "LoftUp": loftup.source if loftup else Source(path=Path(preset.loftup)),
        "SAM 2": sam2_source(preset.sam, model_cfg),
    }


def main(argv: list[str] | None = None) -> int:
    """Fetch and check; returns the exit status."""
    from models.presets import PRESETS, get_preset
    from pipeline.app.parser import add_version

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", default="vit-b16", help=f"{' or '.join(PRESETS)} (default: vit-b16)"
    )
    parser.add_argument(
        "--model-cfg", help="SAM 2 configuration, as in the sam2 package (default: the preset's)"
    )
    add_version(parser)
    args = parser.parse_args(argv)

    from models.weight_files import read_state_dict, resolve

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        sources = preset_sources(get_preset(args.preset), args.model_cfg)
        if all(source.path for source in sources.values()):
            print(f"nothing to download: {args.preset} is part of this repository")
        for name, source in sources.items():
            path = resolve(source)
            read_state_dict(path)  # a damaged file is better found now
            print(f"{name:6}  {path.stat().st_size / 2**20:7.1f} MiB  {path}", flush=True)
    except (ValueError, FileNotFoundError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

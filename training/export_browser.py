"""Write a static page that hears sounds in the browser with a checkpoint: any host serves the folder as it is.

    python training/export_browser.py checkpoints/audiopg-tiny exported/page
    python -m http.server --directory exported/page     # then open http://localhost:8000

The folder holds the page (`space/browser/`), the encoder as ONNX, a linear decoder of the synthesizer's factors that
is fitted here, in a minute or two, and an example. The page loads ONNX Runtime from a public host; after `npm ci
--prefix space/browser`, with `--runtime space/browser/node_modules/onnxruntime-web/dist`, from its own folder, 15 MB
more. Needs `audiopg[onnx]`.
"""

import argparse
import sys
from pathlib import Path

from audiopg.training.publishing.browser_page import write_page


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="folder or Hub name of an AudioPG encoder, with or without a head")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runtime", help="folder of ONNX Runtime's files for the web, to copy, or their address")
    known = parser.parse_args(arguments)
    try:
        write_page(known.checkpoint, known.folder, known.runtime)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    megabytes = sum(file.stat().st_size for file in known.folder.rglob("*") if file.is_file()) / 1e6
    sys.stderr.write(
        f"{known.folder}: a page of {megabytes:.1f} MB; python -m http.server --directory {known.folder}\n"
    )


if __name__ == "__main__":
    main()

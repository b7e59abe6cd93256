"""The main job on a real trained model: compile it, look at it, run it on a photograph, race it against ONNX Runtime.

Each step is a command that you could type; the script prints it and then runs it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import skimage

HERE = Path(__file__).parent
PHOTOGRAPH = Path(skimage.__file__).parent / "data" / "coffee.png"
PREPROCESS = "resize=256,crop=224,interpolation=bicubic,range=255,mean=127,std=128"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lvc-demo-") as folder:
        artefact = str(Path(folder) / "lite0.lvc")
        model = f"{os.path.relpath(HERE)}/efficientnet_lite0.py:trained"
        for command in (
            ["compile", model, "--preprocess", PREPROCESS, "--labels", "imagenet", "--check", "-o", artefact],
            ["inspect", artefact, "--top", "5"],
            ["run", artefact, str(PHOTOGRAPH)],
            ["bench", artefact, "--against", "onnxruntime,torch", "--threads", "1"],
        ):
            print(f"\n$ lvc {shlex.join(command)}", flush=True)
            code = subprocess.run([sys.executable, "-m", "lvc", *command], check=False).returncode
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())

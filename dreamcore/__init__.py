"""DreamBooth with one core: every decision of a run is made here, in NumPy, and a backend runs the network.

Importing this module imports neither a framework nor NumPy: `train`, `generate` and the rest load what they need when
they are called.

    >>> import dreamcore
    >>> run = dreamcore.train("sd15-lora", instance_data_dir="dog", instance_prompt="a photo of sks dog")
    >>> dreamcore.generate(pretrained_model_name_or_path=..., lora=run.folder, prompt="a sks dog in snow")
"""

from __future__ import annotations

__version__ = "0.1.0"

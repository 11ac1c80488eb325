"""What the server of a sweep's cells imports: all that a run imports.

A fork would walk through all of it, and copy it, each time that it collects garbage: it is taken out of the collector's
sight. Nor is any looked for meanwhile, since imports make none.
"""

import atexit
import gc

gc.disable()

import ddpm.build  # noqa: E402
import ddpm.training.checkpointing  # noqa: E402
import ddpm.training.trainer  # noqa: E402, F401

gc.freeze()
gc.enable()
atexit.register(gc.unfreeze)  # some libraries complain of what is left at the end

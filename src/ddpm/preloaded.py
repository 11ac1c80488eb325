"""The server from which a sweep's cells are forked imports this module, and with it all that a run imports.

Garbage collection in a cell would visit all of these objects, and so copy every page on which they lie: `gc.freeze`
takes them out of its sight. The collector is off during the imports, which leave little garbage.

Ctrl-C reaches the server, too, which ignores it once it serves: during the imports it ends without a word.
"""

import atexit
import gc
import os
import signal

signal.signal(signal.SIGINT, lambda *_: os._exit(130))
gc.disable()

import ddpm.build  # noqa: E402
import ddpm.training.checkpointing  # noqa: E402
import ddpm.training.trainer  # noqa: E402, F401

gc.freeze()
gc.enable()
atexit.register(gc.unfreeze)  # some libraries complain of what is left at the end

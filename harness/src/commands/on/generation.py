"""When a text that transformers generates ends, on the virtual GPU: once it has as many tokens as it may have.

`generate` asks the GPU whether all texts are done, and no answer is computed there. What does not depend on values is known on the host: how long the texts are, and how long
they may be (`max_new_tokens`, `max_length`, `max_time`). So no text ends before that by a token that is not there, and each ends then. Each time that this decides, the virtual GPU notes it.
"""

import ctypes
import functools
import sys
import threading
import time

UTILS = "transformers.generation.utils"
CRITERIA = "transformers.generation.stopping_criteria"


class _Known(threading.local):
    """Whether the texts of this thread are done, as far as the host knows; none where their length has no end."""

    done = None


_known = _Known()


def _done(criteria, length):
    """What lengths and times say of the texts; none where nothing says when they end."""
    kinds = sys.modules[CRITERIA]
    ends = [length >= one.max_length for one in criteria if isinstance(one, kinds.MaxLengthCriteria)]
    over = [time.time() - one.initial_timestamp > one.max_time for one in criteria if isinstance(one, kinds.MaxTimeCriteria)]
    return any(ends + over) if ends or any(over) else None


def _watch_criteria(kind):
    call = kind.__call__

    @functools.wraps(call)
    def call_and_know(self, input_ids, *arguments, **named):
        answer = call(self, input_ids, *arguments, **named)
        _known.done = _done(self, input_ids.shape[1]) if input_ids.device.type == "cuda" else None
        return answer

    kind.__call__ = call_and_know


def _decide(mixin):
    ask = mixin._has_unfinished_sequences

    @functools.wraps(ask)
    def decide(self, this_peer_finished, *arguments, **named):
        done, _known.done = _known.done, None
        if done is None:
            return ask(self, this_peer_finished, *arguments, **named)
        if done:
            ctypes.CDLL(None).lowmem_virtual_gpu_decided(b"transformers' generate ended a text at its greatest length")
        return not done

    mixin._has_unfinished_sequences = decide


def watch(module):
    """Has texts end that `module`, which is UTILS, generates."""
    _watch_criteria(sys.modules[CRITERIA].StoppingCriteriaList)
    _decide(module.GenerationMixin)

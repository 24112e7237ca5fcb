"""What `lowmem on` puts before Python's own path: as a process ends, it writes down what PyTorch's caching allocator counted. Where PyTorch is the one that
lowmem is built with, each of its operations tells the virtual GPU what it asks for, so that its time is known.

Python imports a module of this name at its start. It does nothing unless the program imports torch and uses the GPU, and the sitecustomize that would
have been imported without it still is. Whatever goes wrong here must not show in the program, hence the broad `except`s: the figures are then not known.
"""

import atexit
import ctypes
import json
import os
import sys


_HERE = os.path.dirname(os.path.abspath(__file__))


class _Allocator:
    """The counters of torch's caching allocator: peaks, which a program may reset, and the last allocation that failed."""

    # torch's own functions that reset the peaks.
    RESETS = ("_cuda_resetPeakMemoryStats", "_accelerator_resetPeakStats")
    PEAKS = ("allocated_bytes.all.peak", "reserved_bytes.all.peak", "active_bytes.all.peak")

    def __init__(self, torch, cuda):
        self.torch = torch
        self.cuda = cuda  # While it is being imported, torch has no such attribute yet.
        self.peaks = {}
        self.failed = None
        self.tells_work = False
        self.peak = None
        self.places = None
        self.asked_size = False

    def watch(self):
        for name in self.RESETS:
            reset = getattr(self.torch._C, name, None)
            if reset is not None:
                setattr(self.torch._C, name, self.reading_first(reset))
        # torch calls this when the program first uses the GPU, and not before.
        self.cuda._lazy_call(self.observe_size)
        self.cuda._lazy_call(self.observe_peak)
        self.cuda._lazy_call(self.observe_failures)
        self.cuda._lazy_call(self.observe_work)

    def reading_first(self, reset):
        def read_and_reset(*arguments):
            self.read()
            return reset(*arguments)

        return read_and_reset

    def read(self):
        try:
            for device in range(self.cuda.device_count() if self.cuda.is_initialized() else 0):
                counted = self.cuda.memory_stats(device)
                before = self.peaks.get(device, (0, 0, 0))
                self.peaks[device] = tuple(max(counted.get(name, 0), old) for name, old in zip(self.PEAKS, before))
        except Exception:
            pass

    def observe_failures(self):
        try:
            self.torch._C._cuda_attach_out_of_memory_observer(self.ran_out)
        except Exception:
            pass  # The asynchronous allocator has no observers.

    def observe_size(self):
        """A program that reads how much memory the GPU has may decide by it. torch itself reads that too, and does not."""
        try:
            properties = self.torch._C._CudaDeviceProperties
            size = properties.total_memory

            def read(device):
                asker = sys._getframe(1).f_globals.get("__name__", "")
                self.asked_size |= asker.split(".")[0] != "torch"
                return size.__get__(device)

            properties.total_memory = property(read)
        except Exception:
            pass  # A version that has them in another way.

    def limits(self):
        """What share of each GPU's memory the program allows itself, where it does not allow itself all."""
        try:
            devices = range(self.cuda.device_count() if self.cuda.is_initialized() else 0)
            shares = {device: self.cuda.get_per_process_memory_fraction(device) for device in devices}
            return {str(device): share for device, share in shares.items() if share < 1}
        except Exception:
            return {}  # A version, or an allocator, that does not tell.

    def observer(self):
        """The library that hears of operations and allocations; None where it is for another PyTorch."""
        observer = ctypes.CDLL(os.environ["LOWMEM_OBSERVER"])
        observer.lowmem_observer_torch.restype = ctypes.c_char_p
        return observer if observer.lowmem_observer_torch().decode() == str(self.torch.__version__).split("+")[0] else None

    def observe_peak(self):
        try:
            peak = _beside("peak")
            self.places = peak.Places(self.torch)
            observer = self.observer()
            if observer is not None:
                self.peak = peak.Peak(self.torch, observer, self.places)
        except Exception:
            pass  # The asynchronous allocator tells nothing.

    def observe_work(self):
        try:
            observer = self.observer()
            self.tells_work = observer is not None and observer.lowmem_observe_work(None, None, None) == 0
        except Exception:
            pass

    def ran_out(self, device, requested, _total, free):
        try:
            now = self.cuda.memory_stats(device)
            allocated, reserved = (now.get(name, 0) for name in ("allocated_bytes.all.current", "reserved_bytes.all.current"))
        except Exception:
            allocated, reserved = 0, 0
        place, library = self.place()
        self.failed = {
            "device": device,
            "requested_bytes": requested,
            "free_bytes": free,
            "allocated_bytes": allocated,
            "reserved_bytes": reserved,
            "place": place or library,
        }

    def place(self):
        """The line of the program that is being run, and the library's that it called."""
        try:
            return self.places.here(sys._getframe(2))
        except Exception:  # A thread of torch's own, which runs the backward pass, has none.
            return None, None

    def peaks_made(self):
        try:
            return self.peak.end(self.cuda.device_count()) if self.peak is not None else {}
        except Exception:
            return {}


def _beside(name):
    """The module in a file beside this one, which is on no path."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("_lowmem_" + name, os.path.join(_HERE, name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _host_peak_bytes():
    """The most of the machine's memory that this process held, as the kernel counts it."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except Exception:
        return None


class _OnImport:
    """Waits for a module to be imported, and gives it to `then`."""

    def __init__(self, name, then):
        self.name = name
        self.then = then
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            execute = spec.loader.exec_module

            def execute_and_watch(module):
                execute(module)
                try:
                    self.then(module)
                except Exception:
                    pass  # A version that is made in another way goes on as it would.

            spec.loader.exec_module = execute_and_watch
        return spec


class _Watch:
    """What is known of the allocator, once torch.cuda is imported."""

    def __init__(self):
        self.allocator = None

    def begin(self, cuda):
        self.allocator = _Allocator(sys.modules["torch"], cuda)
        self.allocator.watch()

    def write(self):
        try:
            torch = sys.modules["torch"]
            allocator = self.allocator or _Allocator(torch, torch.cuda)
            allocator.read()
            names = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_active_bytes")
            # What nobody caught, which is why the process ends.
            error = getattr(sys, "last_value", None)
            record = {
                "lacked_host_memory": isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error),
                "torch": str(torch.__version__),
                "cuda": torch.version.cuda,
                "devices": {str(device): dict(zip(names, peaks)) for device, peaks in allocator.peaks.items() if any(peaks)},
                "failed": allocator.failed,
                "peaks": allocator.peaks_made(),
                "host_peak_bytes": _host_peak_bytes(),
                "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "tells_work": allocator.tells_work,
                "asked_size": allocator.asked_size,
                "limits": allocator.limits(),
            }
            path = os.path.join(os.environ["LOWMEM_VIRTUAL_GPU_REPORT"], "%d.torch.json" % os.getpid())
            with open(path + ".part", "w") as file:
                json.dump(record, file)
            os.replace(path + ".part", path)
        except Exception:
            pass


def _import_the_next_one():
    """Imports the sitecustomize that comes after this one on the path. What it raises is Python's to report, as ever."""
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != _HERE]
    this = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", this)


if "LOWMEM_VIRTUAL_GPU_REPORT" in os.environ:
    _watch = _Watch()
    _OnImport("torch.cuda", _watch.begin)
    atexit.register(_watch.write)
    try:
        _generation = _beside("generation")
        _OnImport(_generation.UTILS, _generation.watch)
    except Exception:
        pass
_import_the_next_one()

"""What was in PyTorch's memory, from moment to moment and when most of it was given out: weights, gradients, optimizer state, workspaces, and the rest; and which line asked for it.

`liblowmem_observer.so` keeps the books of the allocator's blocks. Here it is told which blocks the program's modules and optimizers hold: at each new peak
(to within a hundredth), before each step of an optimizer and after it where the peak has moved, and at the end.
"""

import ctypes
import os
import sys
import weakref

# As peak.cpp has them: 0 is not told, 1 is a library's workspace.
KINDS = {"workspace": 1, "weights": 2, "gradients": 3, "optimizer_state": 4}
# As course.h has it: so many moments at most, and of each how many came before, what was reserved, and what was allocated for each kind.
MOMENTS = 512
MOMENT = ctypes.c_uint64 * (3 + len(KINDS))


class Places:
    """Lines of the program as people know them."""

    def __init__(self, torch):
        self.torch = os.path.join(os.path.dirname(torch.__file__), "")
        self.own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
        self.installed = tuple({os.path.join(folder, "") for folder in sys.path if is_for_packages(folder)} | {self.torch, stdlib()})

    def here(self, frame):
        """The innermost line of the user's own file, and the innermost one of a library that it called there: each None where there is none."""
        user, library = None, None
        while frame is not None and user is None:
            file = frame.f_code.co_filename
            if not file.startswith(("<frozen", self.own, self.torch)):
                if not is_installed(file, self.installed):
                    user = line(frame)
                elif library is None and not file.startswith(stdlib()):
                    library = line(frame)
            frame = frame.f_back
        return user, library


def stdlib():
    return os.path.join(os.path.dirname(os.__file__), "")


def is_for_packages(folder):
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except OSError:
        return False


def is_installed(file, folders):
    return file.startswith(folders) or "/site-packages/" in file or "/dist-packages/" in file


def line(frame):
    here = os.path.join(os.getcwd(), "")
    file = frame.f_code.co_filename
    return "%s:%d" % (file[len(here):] if file.startswith(here) else file, frame.f_lineno)


class Peak:
    """The books of one process."""

    def __init__(self, torch, observer, places):
        self.torch = torch
        self.observer = observer
        self.places = places
        self.modules = weakref.WeakSet()
        self.optimizers = weakref.WeakSet()
        self.groups = {"": 0}  # The numbers of the modules' names.
        self.told = {}  # By device: where its peak came.
        self.is_new = False
        self.is_busy = False
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(self.reached)
        observer.lowmem_peak_bytes.restype = ctypes.c_uint64
        self.watches = observer.lowmem_peak_watch(self.callback) == 0
        if self.watches:
            self.meet_all()
            from torch.nn.modules import module
            from torch.optim import optimizer

            module.register_module_parameter_registration_hook(self.meet)
            module.register_module_module_registration_hook(self.meet)
            optimizer.register_optimizer_step_pre_hook(self.will_step)
            optimizer.register_optimizer_step_post_hook(self.stepped)

    def meet(self, module, _name, _value):
        self.modules.add(module)

    def meet_all(self):
        """Those that no hook told of: made before it was there, copied or unpickled."""
        import gc

        for found in gc.get_objects():
            kind = type(found)
            if issubclass(kind, self.torch.nn.Module):
                self.modules.add(found)
            elif issubclass(kind, self.torch.optim.Optimizer):
                self.optimizers.add(found)

    def will_step(self, optimizer, _arguments, _keywords):
        # Gradients are there now, and soon may be no more.
        self.is_new = True
        self.stepped(optimizer, _arguments, _keywords)

    def stepped(self, optimizer, _arguments, _keywords):
        try:
            self.optimizers.add(optimizer)
            if self.is_new:
                self.mark()
        except Exception:
            pass

    def reached(self, device):
        if self.is_busy:
            return
        self.is_busy = True
        try:
            frame = sys._getframe(1) if has_caller() else None
            user, library = self.places.here(frame)
            self.told[device] = {"place": user, "library": library, "module": self.called(frame), "backward": frame is None}
            self.mark()
            self.is_new = True
        except Exception:
            pass
        finally:
            self.is_busy = False

    def called(self, frame):
        """The innermost module that was being called, by its name in the outermost one."""
        calls = []
        while frame is not None:
            # Its arguments live as long as the call does, so that looking at it keeps nothing longer.
            if frame.f_code.co_name == "_call_impl" and frame.f_code.co_filename.endswith("torch/nn/modules/module.py"):
                calls.append(frame.f_locals.get("self"))
            frame = frame.f_back
        if not calls:
            return None
        name = next((name for name, module in calls[-1].named_modules() if module is calls[0]), None)
        kind = type(calls[-1]).__name__
        return kind if name == "" else "%s.%s" % (kind, name if name is not None else type(calls[0]).__name__)

    def owners(self):
        """Each module and the name of its group: the outermost module's class, and its part."""
        modules = list(self.modules)
        inner = {id(child) for module in modules for child in module._modules.values() if child is not None}
        seen = set()
        for root in modules:
            if id(root) in inner:
                continue
            kind = type(root).__name__
            waiting = [(root, kind)] if id(root) not in seen else []
            while waiting:
                module, group = waiting.pop()
                if id(module) in seen:
                    continue
                seen.add(id(module))
                yield module, group
                for name, child in module._modules.items():
                    if child is not None:
                        waiting.append((child, "%s.%s" % (kind, name) if module is root else group))

    def mark(self):
        self.is_new = False
        found = {kind: ([], []) for kind in KINDS}
        group_of = {}

        def add(kind, tensor, group):
            try:
                if tensor.is_cuda:
                    found[kind][0].append(tensor.untyped_storage().data_ptr())
                    found[kind][1].append(group)
            except Exception:
                pass  # One without a storage of its own.

        def add_weight(weight, group):
            add("weights", weight, group)
            if weight.is_leaf and weight.grad is not None:
                add("gradients", weight.grad, group)

        with self.torch._C.DisableTorchFunctionSubclass():
            for module, name in self.owners():
                group = self.groups.setdefault(name, len(self.groups))
                for held in (*module._parameters.values(), *module._buffers.values()):
                    if held is not None:
                        group_of[id(held)] = group
                        add_weight(held, group)
            for optimizer in list(self.optimizers):
                for weights in optimizer.param_groups:
                    for weight in weights["params"]:
                        if id(weight) not in group_of:
                            add_weight(weight, 0)
                for weight, state in optimizer.state.items():
                    for value in state.values() if isinstance(state, dict) else ():
                        if isinstance(value, self.torch.Tensor):
                            add("optimizer_state", value, group_of.get(id(weight), 0))
        for kind, (addresses, groups) in found.items():
            count = len(addresses)
            if count:
                self.observer.lowmem_peak_mark((ctypes.c_uint64 * count)(*addresses), (ctypes.c_int * count)(*groups), count, KINDS[kind])

    def record(self, device):
        """What there was of it on that device."""
        totals = (ctypes.c_uint64 * 2)()
        self.observer.lowmem_peak_totals(device, totals)
        if totals[0] == 0:
            return None
        kinds, modules = dict.fromkeys(KINDS, 0), {}
        for name, group in self.groups.items():
            for kind, number in KINDS.items():
                count = self.observer.lowmem_peak_bytes(device, number, group)
                kinds[kind] += count
                if count and name:
                    modules.setdefault(name, {})[kind] = count
        rest = totals[0] - sum(kinds.values())
        where = self.told.get(device, {"place": None, "library": None, "module": None, "backward": False})
        held = {**kinds, "activations": rest, "unused": max(totals[1] - totals[0], 0)}
        return {**held, "modules": modules, **where, "course": self.course(device, held)}

    def course(self, device, peak):
        """How memory went. What the highest moment was made of was known after it alone."""
        rows, seen = (MOMENT * MOMENTS)(), ctypes.c_uint64()
        count = self.observer.lowmem_peak_course(device, rows, MOMENTS, ctypes.byref(seen))
        moments = [list(row) for row in rows[:count]]
        places = {"activations": 2, **{kind: 2 + number for kind, number in KINDS.items()}}
        highest = max(moments, key=lambda moment: sum(moment[2:]))
        for kind, place in places.items():
            highest[place] = peak[kind]
        column = lambda place: [moment[place] for moment in moments]
        return {"events": seen.value, "at": column(0), "reserved": column(1), **{kind: column(place) for kind, place in places.items()}}

    def end(self, devices):
        if not self.watches:
            return {}
        self.observer.lowmem_peak_unwatch()
        self.meet_all()
        self.mark()
        records = {str(device): self.record(device) for device in range(devices)}
        return {device: record for device, record in records.items() if record is not None}


def has_caller():
    """A thread of torch's own, which runs the backward pass, has no Python below."""
    try:
        sys._getframe(2)
        return True
    except ValueError:
        return False

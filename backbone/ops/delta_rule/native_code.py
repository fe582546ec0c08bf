"""Write the code that decodes one token of one layer, in LLVM's language, and have it compiled for this processor."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import binding, ir

from backbone.ops.delta_rule.native import Row, StepShape

_INT, _FLOAT, _BYTE, _POINTER = ir.IntType(64), ir.FloatType(), ir.IntType(8), ir.PointerType()
_CALLED = ("tanhf", "expf")
# Sums may be made in any order, so that they run in parallel; more freedom could hide a value that is not finite.
_ANY_ORDER = ("reassoc", "contract")
_MULTIPLY_ADD = ("contract",)


def compiler() -> Callable[[StepShape], Any]:
    """Give what compiles a shape; raises AttributeError where the process lacks a function of C that the code calls."""
    process = ctypes.CDLL(None)
    for name in _CALLED:
        binding.add_symbol(name, ctypes.cast(process[name], ctypes.c_void_p).value)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return _compiled


def _compiled(shape: StepShape) -> Any:
    """Make the code of a shape for this processor; gives the engine that holds it as the function `step`."""
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    parsed = binding.parse_assembly(str(_Code(shape).module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


class _Code:
    """Write the code of a shape, in LLVM's language; `module` is the result."""

    def __init__(self, shape: StepShape) -> None:
        self.module = ir.Module("delta_mem_step")
        self._shape = shape
        scalar = ir.FunctionType(_FLOAT, [_FLOAT])
        self._tanh, self._exp = (ir.Function(self.module, scalar, name) for name in _CALLED)
        step = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_INT] * 5), "step")
        self._b = ir.IRBuilder(step.append_basic_block())
        row, x, weight, out, width = step.args
        row_at = self._pointer(row)
        self._row = Row(*(self._load(row_at, _int(field), _INT) for field in range(len(Row._fields))))
        with self._b.if_then(self._differs(x)):
            self._read_and_write(self._pointer(x))
        with self._b.if_then(self._differs(out)):
            self._steer(self._pointer(weight), self._pointer(out), width)
        self._b.ret_void()

    def _read_and_write(self, x: Any) -> None:
        """Write the code for a token: the definition is LayerMemory's and `naive_delta_rule`."""
        b, shape = self._b, self._shape
        weight, bias, projected = (self._pointer(at) for at in (self._row.weight, self._row.bias, self._row.scratch))
        with self._each(self._row.batch) as row:
            token = b.mul(row, _int(shape.hidden))
            with self._each(_int(shape.projected)) as p:
                first = b.mul(p, _int(shape.hidden))
                dot = self._dot(shape.hidden, weight, first, x, token)
                self._store(b.fadd(dot, self._load(bias, p)), projected, p)
            with self._each(_int(shape.heads)) as head:
                self._head(row, head, projected)

    def _head(self, row: Any, head: Any, projected: Any) -> None:
        """Write the code for one head of one row: its direction vectors, then each line of its state."""
        b, shape = self._b, self._shape
        width = shape.heads * shape.rank
        query = b.mul(head, _int(shape.rank))
        key = b.add(query, _int(width))
        if shape.unit:
            self._make_unit(projected, query)
            self._make_unit(projected, key)
        number = b.add(b.mul(row, _int(shape.heads)), head)
        state, after, reads = (self._pointer(at) for at in (self._row.state, self._row.after, self._row.reads))
        valid, writes = self._flag(self._row.valid, row), self._flag(self._row.write, row)
        with self._each(_int(shape.rank)) as i:
            line = b.mul(b.add(b.mul(number, _int(shape.rank)), i), _int(shape.rank))
            read = self._dot(shape.rank, state, line, projected, query)
            at = b.add(b.mul(number, _int(shape.rank)), i)
            self._store(b.select(valid, read, _float(0)), reads, at)
            keep, erase, beta = self._gates(projected, b.add(query, i) if shape.per_row else head)
            value = self._load(projected, b.add(b.add(query, i), _int(2 * width)))
            predicted = self._dot(shape.rank, state, line, projected, key)
            change = b.fsub(b.fmul(beta, value), b.fmul(erase, predicted), flags=_MULTIPLY_ADD)
            with self._each(_int(shape.rank)) as j:
                before = self._load(state, b.add(line, j))
                kept = b.fmul(keep, before)
                new = b.fadd(kept, b.fmul(change, self._load(projected, b.add(key, j))), flags=_MULTIPLY_ADD)
                self._store(b.select(writes, new, before), after, b.add(line, j))

    def _gates(self, projected: Any, gate: Any) -> tuple[Any, Any, Any]:
        """Give keep, erase and write, as `coefficients` does."""
        b, shape = self._b, self._shape
        first = 3 * shape.heads * shape.rank
        beta = self._sigmoid(self._load(projected, b.add(gate, _int(first))))
        keep = b.fsub(_float(1), beta)
        if shape.own_decay:
            decays = first + shape.heads * (shape.rank if shape.per_row else 1)
            keep = self._sigmoid(self._load(projected, b.add(gate, _int(decays))))
        if shape.mode == "no_lambda":
            keep = _float(1)
        return keep, b.fmul(keep, beta) if shape.mode == "lambda_outside" else beta, beta

    def _make_unit(self, values: Any, first: Any) -> None:
        """Squash a vector of `rank` values and divide it by its length, in place."""
        b, rank = self._b, self._shape.rank
        with self._each(_int(rank)) as i:
            at = b.add(first, i)
            self._store(b.call(self._tanh, [self._load(values, at)]), values, at)
        root = b.module.declare_intrinsic("llvm.sqrt", [_FLOAT])
        length = b.call(root, [self._dot(rank, values, first, values, first)])
        # Written so that a length that is not a number stays one.
        length = b.select(b.fcmp_ordered("<", length, _float(self._shape.eps)), _float(self._shape.eps), length)
        with self._each(_int(rank)) as i:
            at = b.add(first, i)
            self._store(b.fdiv(self._load(values, at), length), values, at)

    def _sigmoid(self, value: Any) -> Any:
        b = self._b
        return b.fdiv(_float(1), b.fadd(_float(1), b.call(self._exp, [b.fneg(value)])))

    def _steer(self, weight: Any, out: Any, width: Any) -> None:
        """Write the code that adds scale · W y to a projection's output."""
        b, count = self._b, self._shape.heads * self._shape.rank
        reads = self._pointer(self._row.reads)
        with self._each(self._row.batch) as row:
            first = b.mul(row, _int(count))
            with self._each(width) as i:
                at = b.add(b.mul(row, width), i)
                delta = self._dot(count, weight, b.mul(i, _int(count)), reads, first)
                changed = b.fadd(self._load(out, at), b.fmul(delta, _float(self._shape.scale)), flags=_MULTIPLY_ADD)
                self._store(changed, out, at)

    def _dot(self, count: int, left: Any, left_first: Any, right: Any, right_first: Any) -> Any:
        """Give the sum of the products of two vectors."""
        b, before = self._b, self._b.block
        with self._each(_int(count)) as i:
            total = b.phi(_FLOAT)
            total.add_incoming(_float(0), before)
            product = b.fmul(
                self._load(left, b.add(left_first, i)), self._load(right, b.add(right_first, i)), flags=_ANY_ORDER
            )
            result = b.fadd(total, product, flags=_ANY_ORDER)
            total.add_incoming(result, b.block)
        return result

    @contextmanager
    def _each(self, count: Any) -> Iterator[Any]:
        """Repeat what is written inside for 0 to count - 1; count is at least 1."""
        b = self._b
        before, body, end = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(body)
        b.position_at_end(body)
        index = b.phi(_INT)
        index.add_incoming(_int(0), before)
        yield index
        following = b.add(index, _int(1))
        index.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, count), body, end)
        b.position_at_end(end)

    def _flag(self, address: Any, row: Any) -> Any:
        """Give whether a row is marked; where there is no mask, all are."""
        b, start = self._b, self._b.block
        with b.if_then(self._differs(address)):
            marked = b.icmp_unsigned("!=", self._load(self._pointer(address), row, _BYTE), ir.Constant(_BYTE, 0))
            inside = b.block
        flag = b.phi(ir.IntType(1))
        flag.add_incoming(ir.Constant(ir.IntType(1), 1), start)
        flag.add_incoming(marked, inside)
        return flag

    def _differs(self, address: Any) -> Any:
        return self._b.icmp_unsigned("!=", address, _int(0))

    def _pointer(self, address: Any) -> Any:
        return self._b.inttoptr(address, _POINTER)

    def _load(self, pointer: Any, index: Any, kind: Any = _FLOAT) -> Any:
        return self._b.load(self._b.gep(pointer, [index], source_etype=kind), typ=kind)

    def _store(self, value: Any, pointer: Any, index: Any) -> None:
        self._b.store(value, self._b.gep(pointer, [index], source_etype=_FLOAT))


def _int(value: int) -> Any:
    return ir.Constant(_INT, value)


def _float(value: float) -> Any:
    # LLVM writes float32 constants as doubles, which must be float32 exactly.
    return ir.Constant(_FLOAT, ctypes.c_float(value).value)

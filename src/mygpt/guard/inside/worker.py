"""Where the program runs. One request at a time comes over the channel; what the program left as value goes back.

The only place of mygpt that executes text, and only where `keeper` has isolated it. Nothing here guards anything: a program may change
all of it, and gains what it has already, a say in its own result. What is true whatever it does (time, memory, how it ended) is said by
the monitor; whether a result is right is decided elsewhere (`guard/unit_tests`).
"""

from __future__ import annotations

import _socket as socket
import ast
import builtins
import contextlib
import sys
import types

from mygpt.guard.inside import values
from mygpt.guard.inside.frames import framed, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # when types are checked only: it takes a tenth of the start-up

PROGRAM = "<program>"
_MESSAGE_CHARACTERS = 2_000
# of a function handed in: these are built otherwise, or would end a loop of the caller in silence
_NOT_BY_NAME = (UnicodeError, OSError, StopIteration, StopAsyncIteration, BaseExceptionGroup)


def work(channel: socket.socket, result_bytes: int) -> None:
    """Requests until the channel closes: {id, code, inputs, functions} or {id, call, args, kwargs}; replies: {id, value} or {id, error}."""
    sys.set_int_max_str_digits(0)
    program = types.ModuleType("__main__")
    sys.modules["__main__"] = program
    variables = program.__dict__
    while data := receive(channel):
        request = values.loads(data)
        for name in request.get("functions", ()):
            variables[name] = _handed_in(channel, name)
        variables.update(request.get("inputs") or {})
        reply: dict[str, Any] = {"id": request["id"]}
        try:
            if "call" in request:
                reply["value"] = _look_up(variables, request["call"])(*request["args"], **request["kwargs"])
            else:
                reply["value"] = _execute(request["code"], variables)
        except BaseException as error:
            reply["error"] = _described(error)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        try:
            answer = values.dumps(reply)
        except BaseException as error:
            answer = values.dumps({"id": request["id"], "error": {"type": "ResultNotPlain", "message": str(error), "line": None}})
        if len(answer) > result_bytes:
            what = f"a result of {len(answer)} bytes, of {result_bytes} at most"
            answer = values.dumps({"id": request["id"], "error": {"type": "ResultTooLarge", "message": what, "line": None}})
        channel.sendall(framed(answer))


def _execute(code: str, variables: dict[str, Any]) -> Any:
    """The value of the last statement where that is an expression, as in a notebook."""
    tree = ast.parse(code, PROGRAM)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, PROGRAM, "exec"), variables)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), PROGRAM, "eval"), variables)


def _look_up(variables: dict, name: str) -> Any:
    if name not in variables:
        raise NameError(f"name '{name}' is not defined")
    return variables[name]


def _handed_in(channel: socket.socket, name: str) -> Any:
    """A function whose work is done outside, by the owner of the sandbox."""

    def call(*args: Any, **kwargs: Any) -> Any:
        channel.sendall(framed(values.dumps({"function": name, "args": args, "kwargs": kwargs})))
        answer = values.loads(receive(channel))
        if "error" in answer:
            kind = getattr(builtins, answer["error"]["type"], None)
            is_plain = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_BY_NAME)
            raise (kind if kind is not None and is_plain else RuntimeError)(answer["error"]["message"])
        return answer["value"]

    call.__name__ = name
    return call


def _described(error: BaseException) -> dict[str, Any]:
    """Its class, message and the line of the program; a class may have been written to make that hard."""
    line = None
    try:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == PROGRAM:
                line = trace.tb_lineno
            trace = trace.tb_next
        if isinstance(error, SyntaxError):
            line = error.lineno
        message = str(error)[:_MESSAGE_CHARACTERS]
    except BaseException:
        message = "(its message cannot be had)"
    return {"type": str(type.__getattribute__(type(error), "__name__"))[:100], "message": message, "line": line}

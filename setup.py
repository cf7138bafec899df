"""Only the C part of the build; everything else stands in pyproject.toml.

LBPROXY_EXT=auto (the default: built if a compiler is there) | 1 (fail without it) | 0 (a pure wheel).
LBPROXY_WERROR=1 makes warnings errors. LBPROXY_SANITIZE=address,undefined or =thread builds with the sanitizers.
"""

import os
import sysconfig

from setuptools import Extension, setup

mode = os.environ.get("LBPROXY_EXT", "auto")
sanitize = os.environ.get("LBPROXY_SANITIZE", "")
abi3 = not sysconfig.get_config_var("Py_GIL_DISABLED")

folder = "lbproxy/relay/native"
parts = [
    "module",
    "arguments",
    "submits",
    "events",
    "engine",
    "lifetime",
    "owner",
    "slots",
    "doorway",
    "session",
    "connecting",
    "limits",
    "ending",
    "move",
    "pipes",
    "deadlines",
    "watchdog",
    "calls",
]
compile_args = [
    "-std=c11",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
]
link_args = ["-pthread", "-Wl,-z,relro,-z,now"]
if os.environ.get("LBPROXY_WERROR") == "1":
    compile_args.append("-Werror")
if sanitize:
    compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-U_FORTIFY_SOURCE"]
    link_args.append(f"-fsanitize={sanitize}")
else:
    compile_args += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-clash-protection"]

extension = Extension(
    "lbproxy.relay.native._engine",
    [f"{folder}/{part}.c" for part in parts],
    depends=[f"{folder}/{header}.h" for header in ("binding", "calls", "engine", "session", "state")],
    optional=mode == "auto",
    py_limited_api=abi3,
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if abi3 else [],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)
setup(
    ext_modules=[] if mode == "0" else [extension],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if abi3 and mode != "0" else {},
)

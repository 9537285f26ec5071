"""The machine code that prepares a call: all arguments matched, donations tested, results made.

This file also names the words that describe a compiled call to the machine code.
"""

from __future__ import annotations

from tilewright.runtime.native_team import TEAM

POOLED_FROM = 1
"""Bytes from which a result's memory comes from our pool: only empty results are NumPy's own."""

CALL = {name: i for i, name in enumerate((
    "API", "TEAM", "POOL", "SLOW", "FAIL", "THREADS_NOW", "POSITIONAL", "KEYWORDS", "NAMES",
    "NODES", "TREE", "CODE", "TEMPLATE", "ENTRIES", "INPUTS", "RESULTS", "RESULT", "COPIES",
    "COPY", "ARENA", "ARENA_BYTES", "STRIDE", "MODE", "MOST", "ORDER", "RANGES", "BYTES",
    "LEAVES_AT", "NUMBERS_AT", "OBJECTS_AT", "HELD_AT",
))}
"""Words that describe a compiled call.

SLOW         called with the same arguments when they do not match
FAIL         called with the program's error code
THREADS_NOW  returns the number of threads in force
POSITIONAL, KEYWORDS, NAMES   how many arguments of each sort, and the names' strings
NODES, TREE  the signature (``native_match``) and the result tree (``native_call.TREES``)
TEMPLATE     the program's table, ENTRIES long, with the constants filled in
RESULT       descriptions of RESULTS new arrays: table entry, bytes, descr, rank, shape
COPY         COPIES triples (to, from, bytes) of table entries to copy after the run
ARENA        the table entry of the arena, of ARENA_BYTES; STRIDE: bytes of scratch per thread
MODE         0: run here with the interpreter lock held; 1: here without it; 2, 3: on a team of
             up to MOST threads, in 3 even if its workers have to be woken
ORDER        permutation of the inputs, for the overlap test; 0 where nothing is donated
RANGES       per input 2 * bytes + (1 if donated)
BYTES        size of the frame; ..._AT: words of it where its parts start
"""

RESULT = {"ENTRY": 0, "SPAN": 1, "OF": 2, "DIMENSIONS": 3, "LENGTHS": 4}
MOVE = {"TO": 0, "FROM": 1, "COUNT": 2}

PLACES = {**CALL, **RESULT, **MOVE, "THREADS": TEAM["THREADS"]}

TEXT = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; Whether the arguments are those that were compiled for.
define internal i1 @match_all(ptr %call, ptr %frame, ptr %args, i64 %nargs, ptr %names) {
entry:
  %api = word ptr %call API
  %positional = word i64 %call POSITIONAL
  %as_many = icmp eq i64 %nargs, %positional
  br i1 %as_many, label %named, label %no
named:
  %keywords = word i64 %call KEYWORDS
  %plain = icmp eq ptr %names, null
  br i1 %plain, label %counted, label %count
count:
  %given = word i64 %names SIZE
  br label %counted
counted:
  %n = phi i64 [ 0, %named ], [ %given, %count ]
  %fits = icmp eq i64 %n, %keywords
  br i1 %fits, label %compare, label %no
compare:
  %expected = word ptr %call NAMES
  %offset = word i64 %api TUPLE_ITEMS
  br label %check
check:
  %i = phi i64 [ 0, %compare ], [ %i1, %name ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %name, label %walk
name:
  %first = at %names %offset
  %a = word ptr %first %i
  %b = word ptr %expected %i
  %i1 = add i64 %i, 1
  %same = icmp eq ptr %a, %b
  br i1 %same, label %check, label %no
walk:
  %total = add i64 %positional, %n
  br label %next
next:
  %k = phi i64 [ 0, %walk ], [ %k1, %arg ]
  %left = icmp ult i64 %k, %total
  br i1 %left, label %arg, label %yes
arg:
  %obj = word ptr %args %k
  %k1 = add i64 %k, 1
  %good = call i1 @match(ptr %frame, ptr %obj)
  br i1 %good, label %next, label %no
yes:
  ret i1 true
no:
  ret i1 false
}

; Whether no donated input shares memory with another input. Sorts the inputs by address, starting
; from the order of the last call, which is mostly the right one already.
define internal i1 @separate(ptr %call, ptr %table) {
entry:
  %order = word ptr %call ORDER
  %ranges = word ptr %call RANGES
  %n = word i64 %call INPUTS
  br label %outer
outer:
  %i = phi i64 [ 0, %entry ], [ %i1, %placed ]
  %everything = phi i64 [ 0, %entry ], [ %all1, %placed ]
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i, %n
  br i1 %more, label %take, label %sweep
take:
  %moving = word i64 %order %i
  %start = word i64 %table %moving
  %all1 = add i64 %everything, 0
  br label %inner
inner:
  %j = phi i64 [ %i, %take ], [ %j1, %shift ]
  %first = icmp eq i64 %j, 0
  br i1 %first, label %placed, label %look
look:
  %j1 = sub i64 %j, 1
  %before = word i64 %order %j1
  %address = word i64 %table %before
  %sorted = icmp ule i64 %address, %start
  br i1 %sorted, label %placed, label %shift
shift:
  put i64 %before %order %j
  br label %inner
placed:
  put i64 %moving %order %j
  br label %outer
sweep:
  %k = phi i64 [ 0, %outer ], [ %k1, %fine ]
  %end_any = phi i64 [ 0, %outer ], [ %any1, %fine ]
  %end_donated = phi i64 [ 0, %outer ], [ %donated1, %fine ]
  %left = icmp ult i64 %k, %n
  br i1 %left, label %range, label %yes
range:
  %k1 = add i64 %k, 1
  %input = word i64 %order %k
  %from = word i64 %table %input
  %packed = word i64 %ranges %input
  %bytes = lshr i64 %packed, 1
  %flag = trunc i64 %packed to i1
  %to = add i64 %from, %bytes
  %clash1 = icmp ult i64 %from, %end_donated
  %over = icmp ult i64 %from, %end_any
  %clash2 = and i1 %over, %flag
  %clash = or i1 %clash1, %clash2
  br i1 %clash, label %no, label %fine
fine:
  %farther = icmp ugt i64 %to, %end_any
  %any1 = select i1 %farther, i64 %to, i64 %end_any
  %beyond = icmp ugt i64 %to, %end_donated
  %extend = and i1 %beyond, %flag
  %donated1 = select i1 %extend, i64 %to, i64 %end_donated
  br label %sweep
yes:
  ret i1 true
no:
  ret i1 false
}

; Makes the result array that %about describes; puts its memory into the table. Null on failure.
define internal ptr @make(ptr %call, ptr %frame, ptr %about) {
entry:
  %api = word ptr %call API
  %bytes = word i64 %about SPAN
  %descr = word ptr %about OF
  %nd = word i32 %about DIMENSIONS
  %dims = at %about LENGTHS
  %type = word ptr %api NDARRAY
  %pooled = icmp uge i64 %bytes, $POOLED_FROM
  br i1 %pooled, label %large, label %small
small:
  capi void %api Py_IncRef(ptr %descr)
  %own = capi ptr %api PyArray_NewFromDescr(ptr %type, ptr %descr, i32 %nd, ptr %dims, \
ptr null, ptr null, i32 0, ptr null)
  br label %made
large:
  %pool = word ptr %call POOL
  %memory = call ptr @tw_take(ptr %pool, i64 %bytes)
  %none = icmp eq ptr %memory, null
  br i1 %none, label %full, label %wrap
full:
  %r = capi ptr %api PyErr_NoMemory()
  ret ptr null
wrap:
  %owner = capi ptr %api PyCapsule_New(ptr %memory, ptr null, ptr @tw_give_capsule)
  %unowned = icmp eq ptr %owner, null
  br i1 %unowned, label %lost, label %array
lost:
  call void @tw_give(ptr %memory)
  ret ptr null
array:
  capi void %api Py_IncRef(ptr %descr)
  %view = capi ptr %api PyArray_NewFromDescr(ptr %type, ptr %descr, i32 %nd, ptr %dims, \
ptr null, ptr %memory, i32 1281, ptr null)
  %failed = icmp eq ptr %view, null
  br i1 %failed, label %drop, label %based
drop:
  capi void %api Py_DecRef(ptr %owner)
  ret ptr null
based:
  %e = capi i32 %api PyArray_SetBaseObject(ptr %view, ptr %owner)
  br label %made
made:
  %result = phi ptr [ %own, %small ], [ %view, %based ]
  %null = icmp eq ptr %result, null
  br i1 %null, label %fail, label %enter
enter:
  %entry_index = word i64 %about ENTRY
  %table = word ptr %frame TABLE
  %data = word ptr %result DATA
  put ptr %data %table %entry_index
  ret ptr %result
fail:
  ret ptr null
}

define internal i1 @make_all(ptr %call, ptr %frame) {
entry:
  %n = word i64 %call RESULTS
  %objects = word ptr %frame OBJECTS
  %first = word ptr %call RESULT
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %keep ]
  %about = phi ptr [ %first, %entry ], [ %next, %keep ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %one, label %yes
one:
  %array = call ptr @make(ptr %call, ptr %frame, ptr %about)
  %none = icmp eq ptr %array, null
  br i1 %none, label %no, label %keep
keep:
  put ptr %array %objects %i
  %i1 = add i64 %i, 1
  put i64 %i1 %frame MADE
  %rank = word i64 %about DIMENSIONS
  %length = add i64 %rank, 4
  %next = at %about %length
  br label %check
yes:
  ret i1 true
no:
  ret i1 false
}

; Gives back everything that the call owns but the result.
define internal void @release(ptr %api, ptr %frame) {
entry:
  %objects = word ptr %frame OBJECTS
  %made = word i64 %frame MADE
  %held = word ptr %frame HELD
  %holds = word i64 %frame HOLDS
  call void @drop_all(ptr %api, ptr %objects, i64 %made)
  call void @drop_all(ptr %api, ptr %held, i64 %holds)
  call void @tw_give(ptr %frame)
  ret void
}

define internal void @drop_all(ptr %api, ptr %objects, i64 %n) {
entry:
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %drop ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %drop, label %end
drop:
  %obj = word ptr %objects %i
  capi void %api Py_DecRef(ptr %obj)
  %i1 = add i64 %i, 1
  br label %check
end:
  ret void
}
"""


def prepare_text() -> str:
    """The preparation's code in shorthand; it follows the texts of pool and matcher."""
    return TEXT.replace("$POOLED_FROM", str(POOLED_FROM))

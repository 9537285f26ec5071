"""The machine code of one call: match the arguments, make the results, run, build the result tree.

``tw_call`` is the C function of a CPython builtin, the same for every compiled function: what is
special to one stands in a block of words that the builtin's ``self``, a NumPy array, holds. So a
new signature costs no compilation, and a warm call enters no Python frame.
"""

from __future__ import annotations

TREES = {name: i for i, name in enumerate((
    "result", "input", "tuple", "list", "dict", "object", "build",
))}
"""Kinds of nodes of a result tree: kind, number, address, then the children.

result   the new array of this number; input: the argument of the input of this number
tuple, list   length; dict: length, 0, then key and node per entry
object   0, a Python object that is part of every result
build    length, a callable that is given the tuple of the children
"""

_RUN = """
; The number of threads to run on: 1, or what is in force up to the most that are useful; 0: failed.
define internal i64 @threads(ptr %call) {
entry:
  %mode = word i64 %call MODE
  %team = word ptr %call TEAM
  %several = icmp uge i64 %mode, 2
  br i1 %several, label %look, label %one
one:
  ret i64 1
look:
  %known = word i64 %team THREADS
  %unknown = icmp eq i64 %known, 0
  br i1 %unknown, label %ask, label %limit
ask:
  %api = word ptr %call API
  %function = word ptr %call THREADS_NOW
  %answer = capi ptr %api PyObject_CallNoArgs(ptr %function)
  %none = icmp eq ptr %answer, null
  br i1 %none, label %fail, label %read
read:
  %number = capi i64 %api PyLong_AsLongLong(ptr %answer)
  capi void %api Py_DecRef(ptr %answer)
  br label %limit
limit:
  %now = phi i64 [ %known, %look ], [ %number, %read ]
  %most = word i64 %call MOST
  %n = call i64 @llvm.umin.i64(i64 %now, i64 %most)
  ret i64 %n
fail:
  ret i64 0
}

; Runs the program on a filled table; its status, or -1 with a Python error set.
define internal i64 @execute(ptr %call, ptr %frame) {
entry:
  %api = word ptr %call API
  %team = word ptr %call TEAM
  %pool = word ptr %call POOL
  %table = word ptr %frame TABLE
  %code = word ptr %call CODE
  %stride = word i64 %call STRIDE
  %arena_bytes = word i64 %call ARENA_BYTES
  %n = call i64 @threads(ptr %call)
  %unknown = icmp eq i64 %n, 0
  br i1 %unknown, label %fail, label %size
size:
  %scratch_bytes = mul i64 %stride, %n
  %need = add i64 %arena_bytes, %scratch_bytes
  %some = icmp ne i64 %need, 0
  br i1 %some, label %take, label %ready
take:
  %memory = call ptr @tw_take(ptr %pool, i64 %need)
  %none = icmp eq ptr %memory, null
  br i1 %none, label %full, label %fill
full:
  %e = capi ptr %api PyErr_NoMemory()
  br label %fail
fill:
  %arena = word i64 %call ARENA
  put ptr %memory %table %arena
  br label %ready
ready:
  %space = phi ptr [ null, %size ], [ %memory, %fill ]
  %scratch = getelementptr i8, ptr %space, i64 %arena_bytes
  %mode = word i64 %call MODE
  %hold = icmp eq i64 %mode, 0
  br i1 %hold, label %here, label %away
here:
  %status1 = call i64 @alone(ptr %code, ptr %table, ptr %scratch)
  br label %ran
away:
  %thread = capi ptr %api PyEval_SaveThread()
  %wake = icmp eq i64 %mode, 3
  %status2 = call i64 @tw_run(ptr %team, ptr %code, ptr %table, i64 %n, ptr %scratch, i64 %stride, \
i1 %wake)
  capi void %api PyEval_RestoreThread(ptr %thread)
  br label %ran
ran:
  %status = phi i64 [ %status1, %here ], [ %status2, %away ]
  br i1 %some, label %give, label %end
give:
  call void @tw_give(ptr %space)
  br label %end
end:
  ret i64 %status
fail:
  ret i64 -1
}

; Results that are copies of inputs, constants or other results.
define internal void @copy_all(ptr %call, ptr %table) {
entry:
  %n = word i64 %call COPIES
  %first = word ptr %call COPY
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %copy ]
  %about = phi ptr [ %first, %entry ], [ %next, %copy ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %copy, label %end
copy:
  %to = word i64 %about TO
  %from = word i64 %about FROM
  %bytes = word i64 %about COUNT
  %target = word ptr %table %to
  %source = word ptr %table %from
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %bytes, i1 false)
  %i1 = add i64 %i, 1
  %next = at %about 3
  br label %check
end:
  ret void
}
"""

_BUILD = """
; Calls a Python function or method. CPython 3.10 has no C function for that.
define internal ptr @vectorcall(ptr %function, ptr %args, i64 %nargs, ptr %names) {
  %type = word ptr %function TYPE
  %offset = word i64 %type VECTORCALL_OFFSET
  %place = getelementptr i8, ptr %function, i64 %offset
  %code = load ptr, ptr %place
  %result = call ptr %code(ptr %function, ptr %args, i64 %nargs, ptr %names)
  ret ptr %result
}

define internal ptr @call_one(ptr %function, ptr %arg) {
  %args = alloca ptr
  store ptr %arg, ptr %args
  %result = call ptr @vectorcall(ptr %function, ptr %args, i64 1, ptr null)
  ret ptr %result
}

; The children of a tuple, list or dict that was made empty; false with an error set.
define internal i1 @build_items(ptr %frame, ptr %items, i64 %n) {
entry:
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %keep ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %item, label %yes
item:
  %child = call ptr @build(ptr %frame)
  %none = icmp eq ptr %child, null
  br i1 %none, label %no, label %keep
keep:
  put ptr %child %items %i
  %i1 = add i64 %i, 1
  br label %check
yes:
  ret i1 true
no:
  ret i1 false
}

define internal i1 @build_entries(ptr %frame, ptr %dict, i64 %n) {
entry:
  %api = word ptr %frame FUNCTIONS
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %enter ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %item, label %yes
item:
  %cursor = word ptr %frame CURSOR
  %key = word ptr %cursor 0
  %after = at %cursor 1
  put ptr %after %frame CURSOR
  %child = call ptr @build(ptr %frame)
  %none = icmp eq ptr %child, null
  br i1 %none, label %no, label %enter
enter:
  %error = capi i32 %api PyDict_SetItem(ptr %dict, ptr %key, ptr %child)
  capi void %api Py_DecRef(ptr %child)
  %i1 = add i64 %i, 1
  %good = icmp eq i32 %error, 0
  br i1 %good, label %check, label %no
yes:
  ret i1 true
no:
  ret i1 false
}

; A new reference to what the next node of the result tree says; null with an error set.
define internal ptr @build(ptr %frame) {
entry:
  %api = word ptr %frame FUNCTIONS
  %node = word ptr %frame CURSOR
  %kind = word i64 %node KIND
  %n = word i64 %node NUMBER
  %address = word ptr %node EXPECTED
  %rest = at %node REST
  put ptr %rest %frame CURSOR
  %offset = word i64 %api TUPLE_ITEMS
  switch i64 %kind, label %tuple [
    i64 $result, label %result
    i64 $input, label %input
    i64 $object, label %constant
    i64 $list, label %list
    i64 $dict, label %dict
  ]
result:
  %objects = word ptr %frame OBJECTS
  %array = word ptr %objects %n
  br label %share
input:
  %leaves = word ptr %frame LEAVES
  %argument = word ptr %leaves %n
  br label %share
constant:
  br label %share
share:
  %shared = phi ptr [ %array, %result ], [ %argument, %input ], [ %address, %constant ]
  capi void %api Py_IncRef(ptr %shared)
  ret ptr %shared
list:
  %new_list = capi ptr %api PyList_New(i64 %n)
  %no_list = icmp eq ptr %new_list, null
  br i1 %no_list, label %fail, label %in_list
in_list:
  %pointed = word ptr %new_list LIST_ITEMS
  br label %items
tuple:
  %new_tuple = capi ptr %api PyTuple_New(i64 %n)
  %no_tuple = icmp eq ptr %new_tuple, null
  br i1 %no_tuple, label %fail, label %in_tuple
in_tuple:
  %inline = at %new_tuple %offset
  br label %items
items:
  %sequence = phi ptr [ %new_list, %in_list ], [ %new_tuple, %in_tuple ]
  %places = phi ptr [ %pointed, %in_list ], [ %inline, %in_tuple ]
  %filled = call i1 @build_items(ptr %frame, ptr %places, i64 %n)
  br i1 %filled, label %whole, label %drop
whole:
  %custom = icmp eq i64 %kind, $build
  br i1 %custom, label %apply, label %give
apply:
  %object = call ptr @call_one(ptr %address, ptr %sequence)
  capi void %api Py_DecRef(ptr %sequence)
  ret ptr %object
dict:
  %new_dict = capi ptr %api PyDict_New()
  %no_dict = icmp eq ptr %new_dict, null
  br i1 %no_dict, label %fail, label %entries
entries:
  %entered = call i1 @build_entries(ptr %frame, ptr %new_dict, i64 %n)
  br i1 %entered, label %give, label %drop
give:
  %made = phi ptr [ %sequence, %whole ], [ %new_dict, %entries ]
  ret ptr %made
drop:
  %partial = phi ptr [ %sequence, %items ], [ %new_dict, %entries ]
  capi void %api Py_DecRef(ptr %partial)
  br label %fail
fail:
  ret ptr null
}
"""

_CALL = """
; METH_FASTCALL | METH_KEYWORDS
define ptr @tw_call(ptr %self, ptr %args, i64 %nargs, ptr %names) {
entry:
  %call = word ptr %self DATA
  %api = word ptr %call API
  %pool = word ptr %call POOL
  %bytes = word i64 %call BYTES
  %frame = call ptr @tw_take(ptr %pool, i64 %bytes)
  %none = icmp eq ptr %frame, null
  br i1 %none, label %full, label %prepare
full:
  %memory_error = capi ptr %api PyErr_NoMemory()
  ret ptr null
prepare:
  call void @lay_out(ptr %call, ptr %frame)
  %table = word ptr %frame TABLE
  %matched = call i1 @match_all(ptr %call, ptr %frame, ptr %args, i64 %nargs, ptr %names)
  br i1 %matched, label %donation, label %slow
donation:
  %order = word ptr %call ORDER
  %simple = icmp eq ptr %order, null
  br i1 %simple, label %results, label %overlap
overlap:
  %apart = call i1 @separate(ptr %call, ptr %table)
  br i1 %apart, label %results, label %slow
slow:
  ; Held first: giving up our references may run code that replaces the slow path.
  %function = word ptr %call SLOW
  capi void %api Py_IncRef(ptr %function)
  call void @release(ptr %api, ptr %frame)
  %answer = call ptr @vectorcall(ptr %function, ptr %args, i64 %nargs, ptr %names)
  capi void %api Py_DecRef(ptr %function)
  ret ptr %answer
results:
  %made = call i1 @make_all(ptr %call, ptr %frame)
  br i1 %made, label %run, label %fail
run:
  %status = call i64 @execute(ptr %call, ptr %frame)
  switch i64 %status, label %report [
    i64 0, label %build
    i64 -1, label %fail
  ]
report:
  %error = capi ptr %api PyLong_FromLongLong(i64 %status)
  %unmade = icmp eq ptr %error, null
  br i1 %unmade, label %fail, label %raise
raise:
  %reporter = word ptr %call FAIL
  %ignored = call ptr @call_one(ptr %reporter, ptr %error)
  capi void %api Py_DecRef(ptr %error)
  br label %fail
build:
  call void @copy_all(ptr %call, ptr %table)
  %tree = word ptr %call TREE
  put ptr %tree %frame CURSOR
  %result = call ptr @build(ptr %frame)
  call void @release(ptr %api, ptr %frame)
  ret ptr %result
fail:
  call void @release(ptr %api, ptr %frame)
  ret ptr null
}

define internal void @lay_out(ptr %call, ptr %frame) {
  %api = word ptr %call API
  put ptr %api %frame FUNCTIONS
  put i64 0 %frame HOLDS
  put i64 0 %frame MADE
  %nodes = word ptr %call NODES
  put ptr %nodes %frame CURSOR
  %table = at %frame $FRAME_WORDS
  put ptr %table %frame TABLE
  %leaves_at = word i64 %call LEAVES_AT
  %leaves = at %frame %leaves_at
  put ptr %leaves %frame LEAVES
  %numbers_at = word i64 %call NUMBERS_AT
  %numbers = at %frame %numbers_at
  put ptr %numbers %frame NUMBERS
  %objects_at = word i64 %call OBJECTS_AT
  %objects = at %frame %objects_at
  put ptr %objects %frame OBJECTS
  %held_at = word i64 %call HELD_AT
  %held = at %frame %held_at
  put ptr %held %frame HELD
  %template = word ptr %call TEMPLATE
  %entries = word i64 %call ENTRIES
  %bytes = shl i64 %entries, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %table, ptr %template, i64 %bytes, i1 false)
  ret void
}
"""


def call_text(frame_words: int) -> str:
    """The call's code in shorthand; it follows the other texts."""
    text = _RUN + _BUILD + _CALL
    for name, kind in TREES.items():
        text = text.replace(f"${name}", str(kind))
    return text.replace("$FRAME_WORDS", str(frame_words))

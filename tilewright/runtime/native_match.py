"""The machine code that compares a call's arguments with the signature that was compiled.

A signature is a list of nodes in memory, in the order in which a walk over the arguments meets
them. Every node starts with its kind, a number and an address; what follows depends on the kind.
"""

from __future__ import annotations

API_FUNCTIONS = (
    "Py_IncRef", "Py_DecRef", "PyObject_CallNoArgs",
    "PyObject_GetAttr", "PyObject_RichCompareBool", "PyErr_Clear", "PyErr_NoMemory",
    "PyEval_SaveThread", "PyEval_RestoreThread", "PyDict_GetItemWithError", "PyDict_New",
    "PyDict_SetItem", "PyTuple_New", "PyList_New", "PyCapsule_New", "PyFloat_AsDouble",
    "PyLong_AsLongLongAndOverflow", "PyLong_FromLongLong", "PyLong_AsLongLong",
    "PyDict_Size",
)
API_NUMPY = {"PyArray_NewFromDescr": 94, "PyArray_SetBaseObject": 282}
"""Functions of NumPy's C API by their place in its table, which its stable interface fixes."""

API = {name: i for i, name in enumerate((
    *API_FUNCTIONS, *API_NUMPY, "NDARRAY", "TUPLE_ITEMS", "TRUE", "FALSE",
))}
"""Words of the block of C functions and objects."""

OBJECT = {"TYPE": 1, "SIZE": 2, "LIST_ITEMS": 3, "VECTORCALL_OFFSET": 7}
ARRAY = {"DATA": 2, "RANK": 3, "DIMS": 4, "BASE": 6, "DESCR": 7, "FLAGS": 8}
"""Words of Python's and NumPy's objects; ``runtime.layout`` makes sure that they are so."""

NODE = {"KIND": 0, "NUMBER": 1, "EXPECTED": 2, "INDEX": 3, "REST": 3, "WANTED": 4, "SHAPE": 5}
KINDS = {name: i for i, name in enumerate((
    "array", "tuple", "list", "dict", "same", "equal", "attributes", "float", "int", "bool",
    "number",
))}
"""Kinds of nodes and what their words are, after the kind:

array       rank, descr, index of the input, flags it must have, its shape
tuple       length, exact type; then the nodes of the items
list        length, 0; then the nodes of the items
dict        length, exact type; then per entry its key and its node
same        0, the object
equal       0, an object of whose type and value the argument must be
attributes  how many, exact type; then per attribute its name and its node
float, int, bool, number   code of the element type in memory, exact type, index of the input;
            Python's numbers and (number) NumPy's scalars
"""
CODES = {"f64": 0, "f32": 1, "i64": 2, "i32": 3}

FRAME = {"CURSOR": 0, "TABLE": 1, "LEAVES": 2, "HELD": 3, "HOLDS": 4, "FUNCTIONS": 5, "NUMBERS": 6,
         "OBJECTS": 7, "MADE": 8}
"""Words of the memory of one call.

CURSOR    the next node; TABLE: what the program is given; LEAVES: the argument of each input
HELD      objects that the call owns a reference to, HOLDS of them
NUMBERS   a word per input, for Python numbers
OBJECTS   the result arrays, MADE of them so far
"""
FRAME_WORDS = 16

PLACES = {**API, **OBJECT, **ARRAY, **NODE, **FRAME}

TEXT = """
; Whether an array is the one that a node describes; puts its memory into the table.
define internal i1 @match_array(ptr %frame, ptr %node, ptr %obj) {
entry:
  %api = word ptr %frame FUNCTIONS
  %ndarray = word ptr %api NDARRAY
  %type = word ptr %obj TYPE
  %exact = icmp eq ptr %type, %ndarray
  br i1 %exact, label %header, label %no
header:
  %descr = word ptr %obj DESCR
  %wanted = word ptr %node EXPECTED
  %same = icmp eq ptr %descr, %wanted
  %rank32 = word i32 %obj RANK
  %rank = zext i32 %rank32 to i64
  %nd = word i64 %node NUMBER
  %ranks = icmp eq i64 %rank, %nd
  %flags = word i32 %obj FLAGS
  %mask = word i32 %node WANTED
  %has = and i32 %flags, %mask
  %flagged = icmp eq i32 %has, %mask
  %a = and i1 %same, %ranks
  %good = and i1 %a, %flagged
  br i1 %good, label %sizes, label %no
sizes:
  %dims = word ptr %obj DIMS
  %shape = at %node SHAPE
  br label %check
check:
  %i = phi i64 [ 0, %sizes ], [ %i1, %size ]
  %more = icmp ult i64 %i, %nd
  br i1 %more, label %size, label %yes
size:
  %dim = word i64 %dims %i
  %expected = word i64 %shape %i
  %i1 = add i64 %i, 1
  %fits = icmp eq i64 %dim, %expected
  br i1 %fits, label %check, label %no
yes:
  %data = word ptr %obj DATA
  %rest = at %shape %nd
  put ptr %rest %frame CURSOR
  %done = call i1 @leaf(ptr %frame, ptr %node, ptr %obj, ptr %data)
  ret i1 %done
no:
  ret i1 false
}

; An input was found: its memory goes into the table, and the call keeps it alive.
define internal i1 @leaf(ptr %frame, ptr %node, ptr %obj, ptr %data) {
  %api = word ptr %frame FUNCTIONS
  %index = word i64 %node INDEX
  %table = word ptr %frame TABLE
  put ptr %data %table %index
  %leaves = word ptr %frame LEAVES
  put ptr %obj %leaves %index
  capi void %api Py_IncRef(ptr %obj)
  call void @hold(ptr %frame, ptr %obj)
  ret i1 true
}

; A Python or NumPy number of the right type already; puts it into memory of its element type.
define internal i1 @match_number(ptr %frame, ptr %node, ptr %obj, i64 %kind) {
entry:
  %overflow = alloca i32
  %api = word ptr %frame FUNCTIONS
  %after = at %node 4
  put ptr %after %frame CURSOR
  %index = word i64 %node INDEX
  %numbers = word ptr %frame NUMBERS
  %place = at %numbers %index
  %code = word i64 %node NUMBER
  switch i64 %kind, label %numpy [
    i64 $float, label %float
    i64 $int, label %int
    i64 $bool, label %bool
  ]
numpy:
  %own = at %obj 2
  %n = call i1 @leaf(ptr %frame, ptr %node, ptr %obj, ptr %own)
  ret i1 true
float:
  %double = capi double %api PyFloat_AsDouble(ptr %obj)
  %wide = icmp eq i64 %code, 0
  br i1 %wide, label %f64, label %f32
f64:
  store double %double, ptr %place
  br label %stored
f32:
  %single = fptrunc double %double to float
  store float %single, ptr %place
  br label %stored
int:
  %long = capi i64 %api PyLong_AsLongLongAndOverflow(ptr %obj, ptr %overflow)
  %over = load i32, ptr %overflow
  %fits = icmp eq i32 %over, 0
  br i1 %fits, label %range, label %no
range:
  %short = trunc i64 %long to i32
  %back = sext i32 %short to i64
  %equal = icmp eq i64 %back, %long
  %is64 = icmp eq i64 %code, 2
  %ok = or i1 %equal, %is64
  store i64 %long, ptr %place
  br i1 %ok, label %stored, label %no
bool:
  %true = word ptr %api TRUE
  %is = icmp eq ptr %obj, %true
  %byte = zext i1 %is to i8
  store i8 %byte, ptr %place
  br label %stored
stored:
  %s = call i1 @leaf(ptr %frame, ptr %node, ptr %obj, ptr %place)
  ret i1 true
no:
  ret i1 false
}

; Keeps a reference that the call owns until its end.
define internal void @hold(ptr %frame, ptr %obj) {
  %holds = word i64 %frame HOLDS
  %held = word ptr %frame HELD
  put ptr %obj %held %holds
  %more = add i64 %holds, 1
  put i64 %more %frame HOLDS
  ret void
}

; The items of a tuple or list, which other threads may change while Python code runs.
define internal i1 @match_items(ptr %frame, ptr %obj, i64 %n, i1 %is_list) {
entry:
  %api = word ptr %frame FUNCTIONS
  %offset = word i64 %api TUPLE_ITEMS
  %inline = at %obj %offset
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %pick ]
  %length = word i64 %obj SIZE
  %fits = icmp eq i64 %length, %n
  br i1 %fits, label %bound, label %no
bound:
  %more = icmp ult i64 %i, %n
  br i1 %more, label %item, label %yes
item:
  br i1 %is_list, label %list, label %pick
list:
  %pointed = word ptr %obj LIST_ITEMS
  br label %pick
pick:
  %items = phi ptr [ %inline, %item ], [ %pointed, %list ]
  %child = word ptr %items %i
  %i1 = add i64 %i, 1
  %good = call i1 @match(ptr %frame, ptr %child)
  br i1 %good, label %check, label %no
yes:
  ret i1 true
no:
  ret i1 false
}

; The entries of a dict, or attributes of an object, by name.
define internal i1 @match_named(ptr %frame, ptr %obj, i64 %n, i1 %is_dict) {
entry:
  %api = word ptr %frame FUNCTIONS
  br label %check
check:
  %i = phi i64 [ 0, %entry ], [ %i1, %found ]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %entry1, label %yes
entry1:
  %cursor = word ptr %frame CURSOR
  %key = word ptr %cursor 0
  %next = at %cursor 1
  put ptr %next %frame CURSOR
  %i1 = add i64 %i, 1
  br i1 %is_dict, label %dict, label %attribute
dict:
  %borrowed = capi ptr %api PyDict_GetItemWithError(ptr %obj, ptr %key)
  %missing = icmp eq ptr %borrowed, null
  br i1 %missing, label %error, label %found
attribute:
  %owned = capi ptr %api PyObject_GetAttr(ptr %obj, ptr %key)
  %lacks = icmp eq ptr %owned, null
  br i1 %lacks, label %error, label %keep
keep:
  call void @hold(ptr %frame, ptr %owned)
  br label %found
found:
  %child = phi ptr [ %borrowed, %dict ], [ %owned, %keep ]
  %good = call i1 @match(ptr %frame, ptr %child)
  br i1 %good, label %check, label %no
yes:
  ret i1 true
error:
  capi void %api PyErr_Clear()
  ret i1 false
no:
  ret i1 false
}

; Whether an argument is what the next node says; moves the cursor behind the node.
define internal i1 @match(ptr %frame, ptr %obj) {
entry:
  %api = word ptr %frame FUNCTIONS
  %node = word ptr %frame CURSOR
  %kind = word i64 %node KIND
  %n = word i64 %node NUMBER
  %expected = word ptr %node EXPECTED
  %rest = at %node REST
  put ptr %rest %frame CURSOR
  %is_array = icmp eq i64 %kind, $array
  br i1 %is_array, label %array, label %other
array:
  %r1 = call i1 @match_array(ptr %frame, ptr %node, ptr %obj)
  ret i1 %r1
other:
  %is_same = icmp eq ptr %expected, %obj
  %must = icmp eq i64 %kind, $same
  br i1 %must, label %verdict, label %typed
verdict:
  ret i1 %is_same
typed:
  %type = word ptr %obj TYPE
  %is_equal = icmp eq i64 %kind, $equal
  br i1 %is_equal, label %equal, label %container
equal:
  %wanted = word ptr %expected TYPE
  %types = icmp eq ptr %type, %wanted
  br i1 %types, label %compare, label %no
compare:
  %c = capi i32 %api PyObject_RichCompareBool(ptr %obj, ptr %expected, i32 2)
  %failed = icmp slt i32 %c, 0
  br i1 %failed, label %error, label %compared
error:
  capi void %api PyErr_Clear()
  ret i1 false
compared:
  %r2 = icmp eq i32 %c, 1
  ret i1 %r2
container:
  %exact = icmp eq ptr %type, %expected
  br i1 %exact, label %inside, label %no
inside:
  switch i64 %kind, label %number [
    i64 $tuple, label %tuple
    i64 $list, label %list
    i64 $dict, label %dict
    i64 $attributes, label %attributes
  ]
number:
  %r3 = call i1 @match_number(ptr %frame, ptr %node, ptr %obj, i64 %kind)
  ret i1 %r3
tuple:
  %r4 = call i1 @match_items(ptr %frame, ptr %obj, i64 %n, i1 false)
  ret i1 %r4
list:
  %r7 = call i1 @match_items(ptr %frame, ptr %obj, i64 %n, i1 true)
  ret i1 %r7
dict:
  %entries = capi i64 %api PyDict_Size(ptr %obj)
  %all = icmp eq i64 %entries, %n
  br i1 %all, label %named, label %no
named:
  %r5 = call i1 @match_named(ptr %frame, ptr %obj, i64 %n, i1 true)
  ret i1 %r5
attributes:
  %r6 = call i1 @match_named(ptr %frame, ptr %obj, i64 %n, i1 false)
  ret i1 %r6
no:
  ret i1 false
}
"""


def match_text() -> str:
    """The matcher's code in shorthand."""
    text = TEXT
    for name, kind in KINDS.items():
        text = text.replace(f"${name}", str(kind))
    return text

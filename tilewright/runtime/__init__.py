"""Machine code and arrays enter, arrays leave: executables, the native call, threads, memory."""

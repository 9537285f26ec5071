"""Special functions on nodes: functions of nodes in f32 or f64 that return nodes.

In: nodes. Out: nodes, made of the elementwise ops that the core has.
"""

"""What Theano and PyTensor share: models as graphs of Apply nodes, portable and native, and the look into them op by op.

Runs inside a backend's interpreter: Python >= 3.9, numpy >= 1.22, and the framework that the backend hands in. That is a module
(`framework.py` of the backend's folder) which names what the two call differently:

    NAME                                the framework as its users call it; GROUP: its name in a case's `options`
    module, tensor                      the package and its tensor module
    function, config                    the compiler and the settings
    scan(**arguments)                   the list of a scan's outputs
    scan_op(op, inputs, outputs, k)     a scan's op with another inner graph, truncated after k steps (-1: not)
    step_of(fn, arguments, fixed)       (condition or None, outputs, updates) of one call of a scan's step
    clone(outputs, replace)             copies of the outputs with variables replaced
    grad                                of cost or known gradients; what is null or disconnected is returned as a type
    pushforward(ends, wrt, tangents)    forward mode, by the ops' own rules
    ancestors, graph_inputs, Constant, equal_computations, NullType, DisconnectedType,
        DisconnectedInputError
    tensor_type(dtype, flags)           flags: which dimensions are known to have length 1
    like(value, reference)              the value with what is known of the reference's dimensions
    draw(generator, kind, shape)        one draw within a step; generator(seed) makes the generator
"""

def scanned(step, carry, inputs, length):
    raise NotImplementedError

"""What a solution says, right or wrong, from its grammar to a document of symbols.

Names of arrays carry their axes, one meaning a letter in this package:

    D  layers of the structure graph
    W  items of a layer
    P  slots of parameters
    I  those of instance parameters, the first of P
    A  those of abstract parameters, the others
    R  parameters that a sentence of the problem names on its right side
    E  sentences of the problem
    T  steps of the right solution
    S  sentences of the solution as it is written, mistakes included
    J  lines of one sentence
    M  lines of the whole solution, laid one after another
    F  terms of an expression
    K  kinds of mistakes
    Z  ways in which a mistake is mended
    C  places in a sentence where it can be wrong
    O  what may stand there instead
    X  moments of a solution: before its first step, and after each
    N  tokens of a document
    V  symbols of the vocabulary
    B  problems of a batch
"""

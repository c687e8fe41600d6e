"""What a problem is and how one is found.

`problem` says what a problem is, `search` finds one. On the way `structure` draws a graph of
items, `dependency` chooses parameters that the answer uses and orders them, `distractors` defines
the others, `arithmetic` gives all of them numbers, `template` says which side of the split the
result is on, and `reask` asks for another parameter or writes another solution. `slots` says where
parameters stand in arrays and words; `parameters` reads off a finished problem what its parameters
need and when they are computed. `bits` are sets, `draws` random words.

Letters of axes, each with one meaning in this package:

A  abstract slots
C  pieces that problems are finished in
D  layers of a structure
E  sentences of a problem, an edge each
G  pairs of neighbouring layers, D - 1
H  shapes of a structure
I  instance slots
J  classes of parameters that step 7 weighs alike
L  searches that go on side by side
M  problems found, N, with room for L more
N  problems
O  numbers of operations, 0, 1, …
P  slots, I + A
Q  problems in a piece
R  terms of a right side
S  searches that are taken up again together
T  steps of a solution, as many as there is room for
V  parameters in the order in which they are defined, T + E
W  items of a layer
"""

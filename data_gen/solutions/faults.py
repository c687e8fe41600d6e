"""Names of the faults that the judge finds in steps."""

SKIP = "skip"  # its parameter needs one that has not been computed
UNNEEDED = "unneeded"  # right, and the query does not need it
REPEATED = "repeated"  # right, and done before
CALCULATION = "calculation"  # a result is not what its expression comes to
VALUE = "value"  # a number quoted for a letter is not the letter's
REFERENCE = "reference"  # it uses a parameter that its own does not depend on
MISSING = "missing"  # it leaves out one that its own depends on
OPERATOR = "operator"  # it adds, subtracts or multiplies where it should do another of these
MISREAD = "misread"  # its constant is not the problem's
FORM = "form"  # it cannot be read, or not be written so
UNKNOWN = "unknown"  # the problem has no such parameter
UNDEFINED = "undefined"  # a letter stands for nothing

# All in these is right: they only have no place in a shortest solution.
NEEDLESS = (UNNEEDED, REPEATED)

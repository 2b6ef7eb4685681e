/* The encoder once more, under other names and without instrumentation: targets that decode build their streams with it,
 * so that neither its time nor its coverage gets in their way. */
#include "builder.h"

#include "counts.c"
#include "encode.c"
#include "rans_encode.c"

#ifndef TERSOR_FUZZ_BUILDER_H
#define TERSOR_FUZZ_BUILDER_H

#define tsr_table_round build_table_round
#define tsr_table_write build_table_write
#define tsr_rans_encode build_rans_encode
#define tsr_quantize build_quantize
#define tsr_minmax build_minmax
#define tsr_histogram build_histogram
#define tsr_planes_split build_planes_split

#include "tersor.h"

#endif

#ifndef TERSOR_FUZZ_BUILDER_H
#define TERSOR_FUZZ_BUILDER_H

#define tsr_table_round build_table_round
#define tsr_table_write build_table_write
#define tsr_table_bits build_table_bits
#define tsr_encoder_open build_encoder_open
#define tsr_encoder_fill build_encoder_fill
#define tsr_rans_encode build_rans_encode
#define tsr_context_arrange build_context_arrange
#define tsr_context_histogram build_context_histogram
#define tsr_quantize build_quantize
#define tsr_minmax build_minmax
#define tsr_histogram build_histogram
#define tsr_magnitudes build_magnitudes
#define tsr_class_histogram build_class_histogram
#define tsr_side_histogram build_side_histogram
#define tsr_add_by_class build_add_by_class
#define tsr_class_costs build_class_costs
#define tsr_planes_split build_planes_split

#include "tersor.h"

#endif

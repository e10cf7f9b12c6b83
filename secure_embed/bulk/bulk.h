int32_t se_ready(void);
const char *se_library(void);
size_t se_read_slots(size_t count, const int32_t *files, const int64_t *offsets, size_t slot_bytes, uint8_t *out);
int32_t se_open_values(size_t count, const int64_t *rows, size_t table_rows, const uint8_t *keys, const int64_t *numbers,
                       const uint8_t *additional, size_t additional_bytes, size_t number_at,
                       const uint8_t *sealed, const uint8_t *header, size_t header_bytes, size_t value_bytes,
                       uint8_t *out, uint8_t *opened);
int32_t se_score_halves(size_t count, size_t dimension, uint16_t *halves, const float *queries, size_t queries_count,
                        const int32_t *query_of, float *products, float *squares);
int32_t se_coarse_most(size_t dimension);
int32_t se_coarse_products(size_t rows, size_t dimension, const int8_t *table, size_t queries_count,
                           const int16_t *queries, int32_t *sums);

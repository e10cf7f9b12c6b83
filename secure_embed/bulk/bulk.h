int32_t se_ready(void);
const char *se_library(void);
size_t se_read_slots(size_t count, const int32_t *files, const int64_t *offsets, size_t slot_bytes, uint8_t *out);
int32_t se_open_values(size_t count, const int64_t *rows, size_t table_rows, const uint8_t *keys, const int64_t *numbers,
                       const uint8_t *additional, size_t additional_bytes, size_t number_at,
                       const uint8_t *sealed, const uint8_t *header, size_t header_bytes, size_t value_bytes,
                       uint8_t *out, uint8_t *opened);
int32_t se_score_halves(size_t count, size_t dimension, uint16_t *halves, const float *queries, size_t queries_count,
                        const int32_t *query_of, float *products, float *squares);
int32_t se_coarse_products(size_t rows, size_t dimension, const int8_t *table, const float *steps, size_t queries_count,
                           const float *queries, float *products);
int64_t se_near_lists(size_t count, float *away, const int64_t *numbers, size_t lists, const int64_t *spread, double enough,
                      int64_t *near);
int64_t se_scan(size_t dimension, const float *query, size_t lists, const float *centroids, const uint64_t *codes_at,
                const uint64_t *ids_at, const int64_t *sizes, size_t near_count, const int64_t *near,
                const uint8_t *bitmap, size_t bitmap_bytes, size_t squares_count, const float *squares, size_t wanted,
                int64_t *slots, float *estimates, int32_t portable);

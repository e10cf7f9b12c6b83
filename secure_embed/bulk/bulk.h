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

typedef struct { /* where codes lie: addresses of each list's codes and ids, and how many they are */
    size_t dimension, lists;
    const float *centroids, *squares; /* of the centroids' lengths */
    const uint64_t *codes_at, *ids_at;
    const int64_t *sizes;
} se_codes;

typedef struct {
    se_codes codes;
    const int8_t *rotation, *coarse; /* of centroids; NULL: they are used as they are */
    const float *rotation_steps, *coarse_steps;
    const se_codes *of_centroids; /* the centroids' own codes, in one list; NULL: none */
} se_shard;

typedef struct {
    const float *query;
    const int64_t *spread;
    const uint8_t *bitmap;
    size_t bitmap_bytes, wanted;
    double enough, ends;
    const uint8_t *gone;
    int32_t portable;
    int64_t *slots;
    float *estimates;
    int64_t found, looked;
} se_asked;

int32_t se_search(const se_shard *shard, size_t count, se_asked *asked);

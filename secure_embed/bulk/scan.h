#include <stddef.h>
#include <stdint.h>

#include "bulk.h"
#include "processor.h"

/* What was found so far: a heap with the worst on top. Among equals the higher slot is worse. */
typedef struct {
    int64_t *slots;
    float *estimates;
    size_t count, wanted;
} heap;

static inline int worse(float estimate, int64_t slot, float than, int64_t than_slot)
{
    return estimate < than || (estimate == than && slot > than_slot);
}

static inline void sink(heap *best, size_t hole, size_t count, float estimate, int64_t slot)
{
    for (size_t child; (child = 2 * hole + 1) < count; hole = child) {
        if (child + 1 < count
            && worse(best->estimates[child + 1], best->slots[child + 1], best->estimates[child], best->slots[child]))
            child++;
        if (!worse(best->estimates[child], best->slots[child], estimate, slot))
            break;
        best->estimates[hole] = best->estimates[child];
        best->slots[hole] = best->slots[child];
    }
    best->estimates[hole] = estimate;
    best->slots[hole] = slot;
}

static inline void offer(heap *best, float estimate, int64_t slot)
{
    if (best->count < best->wanted) {
        size_t hole = best->count++;

        for (size_t parent; hole > 0; hole = parent) {
            parent = (hole - 1) / 2;
            if (!worse(estimate, slot, best->estimates[parent], best->slots[parent]))
                break;
            best->estimates[hole] = best->estimates[parent];
            best->slots[hole] = best->slots[parent];
        }
        best->estimates[hole] = estimate;
        best->slots[hole] = slot;
    } else if (worse(best->estimates[0], best->slots[0], estimate, slot))
        sink(best, 0, best->count, estimate, slot);
}

static inline void pour(heap *best, size_t last)
{
    float estimate = best->estimates[last];
    int64_t slot = best->slots[last];

    best->estimates[last] = best->estimates[0];
    best->slots[last] = best->slots[0];
    sink(best, 0, last, estimate, slot);
}

static inline void put_in_order(heap *best)
{
    for (size_t last = best->count; last-- > 1;)
        pour(best, last);
}

/* How far a query may go, and how long. */
typedef struct {
    const uint8_t *bitmap; /* which ids may answer, the lowest bit of the first byte for 0; NULL: all */
    size_t bitmap_bytes;
    const float *squares; /* of each id's vector; NULL: they are of unit length */
    size_t squares_count;
    double ends;
    const uint8_t *gone;
    int32_t portable;
} terms;

/* Estimates of the query's cosine with what lies in these lists. Where vectors are not of unit length it is their product
 * less half their square: the least distance is the best. 0: its time was up. */
int se_scan(const se_codes *codes, const float *query, size_t near_count, const int64_t *near, const terms *of, heap *best);

float se_product(const float *one, const float *other, size_t dimension);

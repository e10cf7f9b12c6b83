/* A query in one call, not in thirty steps of an interpreter: turned, its nearest lists chosen, their codes scanned. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "scan.h"

enum { TIMES_CODED = 4, CODED_MIN = 64 };

FOR_EACH_PROCESSOR
static void round_query(const float *query, size_t dimension, int32_t most, int16_t *rounded, float *step)
{
    float largest = 0, scale;

    for (size_t at = 0; at < dimension; at++) {
        float size = query[at] < 0 ? -query[at] : query[at];

        largest = size > largest ? size : largest;
    }
    *step = largest > 0 ? largest / (float)most : 1;
    scale = largest > 0 ? (float)most / largest : 1;
    for (size_t at = 0; at < dimension; at++) {
        float value = query[at] * scale;

        value = value < (float)most ? value : (float)most; /* NaN is not less */
        value = value > (float)-most ? value : (float)-most;
        rounded[at] = (int16_t)(int32_t)(value + (value < 0 ? -0.5f : 0.5f));
    }
}

FOR_EACH_PROCESSOR
static void multiply(size_t rows, size_t dimension, const int8_t *table, const float *steps, const int16_t *query,
                     float step, float *products)
{
    for (size_t n = 0; n < rows; n++) {
        const int8_t *row = table + dimension * n;
        int32_t sum = 0;

        for (size_t at = 0; at < dimension; at++)
            sum += (int32_t)row[at] * (int32_t)query[at];
        products[n] = (float)sum * (step * steps[n]);
    }
}

/* A query's value, rounded to whole steps of its own, is bounded so that no sum of products with int8 leaves an int32. */
static void coarse_products(size_t rows, size_t dimension, const int8_t *table, const float *steps, const float *query,
                            float *products)
{
    const int64_t most = INT32_MAX / (128 * (int64_t)dimension);
    int16_t rounded[DIMENSION_MAX];
    float step;

    round_query(query, dimension, most < INT16_MAX ? (int32_t)most : INT16_MAX, rounded, &step);
    multiply(rows, dimension, table, steps, rounded, step, products);
    OPENSSL_cleanse(rounded, dimension * sizeof *rounded);
}

/* The products of each query with each row of the table. Below 0: a size is out of bounds, and nothing was done. */
int32_t se_coarse_products(size_t rows, size_t dimension, const int8_t *table, const float *steps, size_t queries_count,
                           const float *queries, float *products)
{
    if (dimension == 0 || dimension > DIMENSION_MAX)
        return -1;
    for (size_t n = 0; n < queries_count; n++)
        coarse_products(rows, dimension, table, steps, queries + dimension * n, products + rows * n);
    return 0;
}

/* The lists that are the least away, the nearest first (among equals the higher number), as few as hold `enough` of what
 * may answer, all that hold any where they do not; how many there are, and what they hold. The n-th is `away[n]` (half of
 * |query - centroid|^2 - |query|^2; overwritten) away and is number `near[n]`, which is where the answer goes. */
static size_t nearest(size_t count, float *away, int64_t *near, const int64_t *spread, double enough, int64_t *held)
{
    heap farther = {near, away, 0, count}; /* the worst on top is the one with the least: the nearest */
    size_t left, end;

    for (size_t n = 0; n < count; n++)
        if (spread[near[n]] > 0)
            offer(&farther, away[n], near[n]); /* fills places that were read already */
    end = left = farther.count;
    *held = 0;
    while (left > 0 && ((double)*held < enough || left == end)) {
        *held += spread[near[0]];
        pour(&farther, --left);
    }
    memmove(near, near + left, (end - left) * sizeof *near);
    for (size_t first = 0, last = end - left; first + 1 < last; first++) {
        int64_t kept = near[--last];

        near[last] = near[first];
        near[first] = kept;
    }
    return end - left;
}

/* From the lists that the centroids' codes say are near, four times as many as are wanted on average. 0: they are no small
 * part of all lists, or hold too little. */
static size_t nearest_by_codes(const se_shard *shard, const float *turned, const se_asked *one, int64_t total, float *away,
                               int64_t *near, int64_t *held)
{
    const size_t lists = shard->codes.lists, dimension = shard->codes.dimension;
    const double expected = one->enough * (double)lists / (double)(total > 0 ? total : 1);
    const terms all = {NULL, 0, shard->codes.squares, lists, 1e300, NULL, one->portable};
    const int64_t only = 0;
    heap best = {near, away, 0, CODED_MIN};
    size_t count;

    if (!(expected >= 0 && expected < (double)lists))
        return 0;
    if (TIMES_CODED * ((size_t)expected + 1) > CODED_MIN)
        best.wanted = TIMES_CODED * ((size_t)expected + 1);
    if (best.wanted > lists / TIMES_CODED)
        return 0;
    se_scan(shard->of_centroids, turned, 1, &only, &all, &best);
    for (size_t n = 0; n < best.count; n++)
        away[n] = shard->codes.squares[near[n]] / 2
            - se_product(turned, shard->codes.centroids + dimension * (size_t)near[n], dimension);
    count = nearest(best.count, away, near, one->spread, one->enough, held);
    return 2 * count > best.wanted || (double)*held < one->enough ? 0 : count;
}

static size_t near_lists(const se_shard *shard, const float *turned, const se_asked *one, float *away, int64_t *near,
                         int64_t *held)
{
    const size_t lists = shard->codes.lists, dimension = shard->codes.dimension;
    int64_t total = 0;

    for (size_t n = 0; n < lists; n++)
        total += one->spread[n];
    if (shard->of_centroids != NULL) {
        size_t count = nearest_by_codes(shard, turned, one, total, away, near, held);

        if (count > 0)
            return count;
    }
    if (shard->coarse != NULL)
        coarse_products(lists, dimension, shard->coarse, shard->coarse_steps, turned, away);
    else
        for (size_t n = 0; n < lists; n++)
            away[n] = se_product(turned, shard->codes.centroids + dimension * n, dimension);
    for (size_t n = 0; n < lists; n++) {
        away[n] = shard->codes.squares[n] / 2 - away[n];
        near[n] = (int64_t)n;
    }
    return nearest(lists, away, near, one->spread, one->enough, held);
}

/* For each that is asked, its best, best first, among equals the lower slot: `found` of them, of `looked` that may answer in
 * the lists that were looked into. `found` below 0: its time was up. Below 0 in all, and nothing was touched: -1, a size is
 * out of bounds; -2, there is no memory. */
int32_t se_search(const se_shard *shard, size_t count, se_asked *asked)
{
    const size_t lists = shard->codes.lists, dimension = shard->codes.dimension;
    float turned[DIMENSION_MAX], *away;
    int64_t *near;

    if (dimension == 0 || dimension > DIMENSION_MAX || lists == 0)
        return -1;
    for (size_t n = 0; n < lists; n++)
        if (shard->codes.sizes[n] < 0 || shard->codes.sizes[n] > UINT32_MAX)
            return -1;
    away = malloc(lists * sizeof *away);
    near = malloc(lists * sizeof *near);
    if (away != NULL && near != NULL)
        for (size_t n = 0; n < count; n++) {
            se_asked *one = asked + n;
            const terms of = {one->bitmap, one->bitmap_bytes, NULL, 0, one->ends, one->gone, one->portable};
            heap best = {one->slots, one->estimates, 0, one->wanted};
            size_t near_count;

            coarse_products(dimension, dimension, shard->rotation, shard->rotation_steps, one->query, turned);
            near_count = near_lists(shard, turned, one, away, near, &one->looked);
            one->found = -1;
            if (one->wanted == 0)
                one->found = 0;
            else if (se_scan(&shard->codes, turned, near_count, near, &of, &best)) {
                put_in_order(&best);
                one->found = (int64_t)best.count;
            }
        }
    OPENSSL_cleanse(turned, sizeof turned);
    free(away);
    free(near);
    return away != NULL && near != NULL ? 0 : -2;
}

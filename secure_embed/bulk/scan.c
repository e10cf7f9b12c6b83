/* Estimates by RaBitQ codes of one bit a dimension, as FAISS' IndexIVFRaBitQ lays them out in its lists: bits, the lowest
 * first, then two factors in float32. Source: Gao and Long, "RaBitQ", SIGMOD 2024, equation 20 and section 3.3.
 *
 * FAISS' own scan prepares the query anew for each list, which takes as long as 300 codes; behind a filter, a list holds a
 * few that may answer. Here that costs as much as 50.
 */
#define _GNU_SOURCE /* clock_gettime */
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "scan.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bits are taken out of words whose lowest byte comes first"
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAS_VNNI
#endif

enum { WORD_BITS = 64, WORD_BYTES = 8, PLANES = 8, TOGETHER = 256, LINE_BYTES = 64, CODES_A_LOOK = 50000 };

/* Added to a centroid's square: beside a short one, what a record's length lacks of 1 would be multiplied. */
static const float SHORT = 0.01f;

/* The query beside one centroid: what is left of it without its part along the centroid, each value rounded to eight bits.
 * What a record's residual has along the centroid is known exactly, as records are of unit length: only the rest is
 * estimated, and an estimate is off in proportion to the length of what it is made with. */
typedef struct {
    float values[DIMENSION_MAX];
    int8_t rounded[DIMENSION_MAX]; /* zeros up to a whole word */
    uint64_t planes[PLANES][DIMENSION_MAX / WORD_BITS]; /* the same, the n-th bit of each in the n-th */
    float step, product, square, share; /* the query's with the centroid; the centroid's own; about their ratio */
    int32_t sum;
} residual;

FOR_EACH_PROCESSOR
float se_product(const float *one, const float *other, size_t dimension)
{
    float products[LANES] = {0};
    size_t at = 0;

    for (; at + LANES <= dimension; at += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            products[lane] += one[at + lane] * other[at + lane];
    for (; at < dimension; at++)
        products[0] += one[at] * other[at];
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t lane = 0; lane < width; lane++)
            products[lane] += products[lane + width];
    return products[0];
}

FOR_EACH_PROCESSOR
static void take_away(const float *query, const float *centroid, size_t dimension, residual *left)
{
    float largest[LANES] = {0}, scale;
    int32_t sum = 0;
    size_t at = 0;

    for (; at + LANES <= dimension; at += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            float value = query[at + lane] - left->share * centroid[at + lane];
            float size = value < 0 ? -value : value;

            left->values[at + lane] = value;
            largest[lane] = size > largest[lane] ? size : largest[lane];
        }
    for (; at < dimension; at++) {
        float value = query[at] - left->share * centroid[at];
        float size = value < 0 ? -value : value;

        left->values[at] = value;
        largest[0] = size > largest[0] ? size : largest[0];
    }
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t lane = 0; lane < width; lane++)
            largest[lane] = largest[lane + width] > largest[lane] ? largest[lane + width] : largest[lane];
    left->step = largest[0] > 0 ? largest[0] / INT8_MAX : 1;
    scale = 1 / left->step;
    for (at = 0; at < dimension; at++) {
        float value = left->values[at] * scale;
        int32_t whole;

        value = value < INT8_MAX ? value : INT8_MAX; /* NaN is not less */
        value = value > -INT8_MAX ? value : -INT8_MAX;
        whole = (int32_t)(value + (value < 0 ? -0.5f : 0.5f));
        left->rounded[at] = (int8_t)whole;
        sum += whole;
    }
    left->sum = sum;
}

/* Bits of 64 values to eight words, by multiplication: Warren, "Hacker's Delight", 2nd edition, section 7-3. */
static void split(residual *left, size_t words)
{
    for (size_t word = 0; word < words; word++)
        for (size_t plane = 0; plane < PLANES; plane++) {
            uint64_t bits = 0;

            for (size_t byte = 0; byte < WORD_BYTES; byte++) {
                uint64_t eight;

                memcpy(&eight, left->rounded + word * WORD_BITS + byte * WORD_BYTES, sizeof eight);
                bits |= (((eight >> plane) & 0x0101010101010101u) * 0x0102040810204080u >> 56) << (8 * byte);
            }
            left->planes[plane][word] = bits;
        }
}

static void prepare(const float *query, const float *centroid, float square, size_t dimension, int split_too,
                    residual *left)
{
    left->product = se_product(query, centroid, dimension);
    left->square = square;
    left->share = left->product / (left->square + SHORT);
    take_away(query, centroid, dimension, left);
    if (split_too)
        split(left, (dimension + WORD_BITS - 1) / WORD_BITS);
}

static inline uint64_t word_at(const uint8_t *code, size_t word)
{
    uint64_t bits;

    memcpy(&bits, code + word * WORD_BYTES, sizeof bits);
    return bits;
}

/* What is left of a code behind its last whole word. */
static inline uint64_t rest_at(const uint8_t *code, size_t dimension)
{
    uint64_t bits = 0;

    for (size_t byte = dimension / WORD_BITS * WORD_BYTES; byte < (dimension + 7) / 8; byte++)
        bits |= (uint64_t)code[byte] << byte % WORD_BYTES * 8;
    return bits;
}

/* Of each code that is picked, the sum of the residual's values where the code has a bit. */
typedef void summing(const residual *left, size_t dimension, const uint8_t *codes, size_t code_bytes, size_t count,
                     const uint32_t *picks, int32_t *sums);

static inline int32_t sum_of_word(const residual *left, size_t word, uint64_t bits)
{
    int32_t sum = 0;

    for (size_t plane = 0; plane < PLANES; plane++) /* the highest is a sign: two's complement */
        sum += __builtin_popcountll(bits & left->planes[plane][word]) * (plane < PLANES - 1 ? 1 << plane : -128);
    return sum;
}

FOR_EACH_PROCESSOR
static void sum_by_planes(const residual *left, size_t dimension, const uint8_t *codes, size_t code_bytes, size_t count,
                          const uint32_t *picks, int32_t *sums)
{
    for (size_t n = 0; n < count; n++) {
        const uint8_t *code = codes + code_bytes * picks[n];
        int32_t sum = 0;
        size_t word = 0;

        for (; word < dimension / WORD_BITS; word++)
            sum += sum_of_word(left, word, word_at(code, word));
        if (dimension % WORD_BITS)
            sum += sum_of_word(left, word, rest_at(code, dimension));
        sums[n] = sum;
    }
}

#ifdef HAS_VNNI
__attribute__((target("avx512f,avx512bw,avx512vnni")))
static inline __m512i add_word(__m512i sum, const residual *left, size_t word, uint64_t bits)
{
    return _mm512_dpbusd_epi32(sum, _mm512_maskz_set1_epi8(bits, 1),
                               _mm512_loadu_si512(left->rounded + word * WORD_BITS));
}

__attribute__((target("avx512f,avx512bw,avx512vnni")))
static void sum_by_words(const residual *left, size_t dimension, const uint8_t *codes, size_t code_bytes, size_t count,
                         const uint32_t *picks, int32_t *sums)
{
    const size_t words = dimension / WORD_BITS;

    for (size_t n = 0; n < count; n++) {
        const uint8_t *code = codes + code_bytes * picks[n];
        __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
        size_t word = 0;

        for (; word + 1 < words; word += 2) {
            even = add_word(even, left, word, word_at(code, word));
            odd = add_word(odd, left, word + 1, word_at(code, word + 1));
        }
        if (word < words)
            even = add_word(even, left, word, word_at(code, word));
        if (dimension % WORD_BITS)
            odd = add_word(odd, left, words, rest_at(code, dimension));
        sums[n] = _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd));
    }
}
#endif

/* Which entries of a list, from `first` to `end`, may answer. */
static size_t pick(const int64_t *ids, size_t first, size_t end, const uint8_t *bitmap, size_t bitmap_bytes,
                   uint32_t *picks)
{
    size_t count = 0;

    if (bitmap == NULL) {
        for (size_t at = first; at < end; at++)
            picks[count++] = (uint32_t)at;
        return count;
    }
    for (size_t at = first; at < end; at++) {
        uint64_t id = (uint64_t)ids[at];

        picks[count] = (uint32_t)at;
        count += id / 8 < bitmap_bytes && (bitmap[id / 8] >> (id % 8) & 1);
    }
    return count;
}

static int is_over(const terms *of)
{
    struct timespec now;

    if (of->gone != NULL && *(const volatile uint8_t *)of->gone)
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec > of->ends;
}

int se_scan(const se_codes *codes, const float *query, size_t near_count, const int64_t *near, const terms *of,
                heap *best)
{
    const size_t dimension = codes->dimension, bits_bytes = (dimension + 7) / 8, code_bytes = bits_bytes + 2 * sizeof(float);
    const float scale = 1 / __builtin_sqrtf((float)dimension), square_of_query = se_product(query, query, dimension);
    const float unit = square_of_query > 0 ? 1 / __builtin_sqrtf(square_of_query) : 0;
    summing *sum_up = sum_by_planes;
    size_t since = 0;
    int in_time = 1;
    residual left;

#ifdef HAS_VNNI
    if (!of->portable && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
        sum_up = sum_by_words;
#endif
    memset(left.rounded, 0, sizeof left.rounded);
    for (size_t n = 0; n < near_count && in_time; n++) {
        const size_t size = (size_t)codes->sizes[near[n]];
        const uint8_t *its_codes = (const uint8_t *)(uintptr_t)codes->codes_at[near[n]];
        const int64_t *ids = (const int64_t *)(uintptr_t)codes->ids_at[near[n]];
        int ready = 0;

        for (size_t first = 0; first < size; first += TOGETHER) {
            const size_t end = size - first > TOGETHER ? first + TOGETHER : size;
            uint32_t picks[TOGETHER];
            int32_t sums[TOGETHER];
            const size_t count = pick(ids, first, end, of->bitmap, of->bitmap_bytes, picks);

            if (count == 0)
                continue;
            if (of->bitmap != NULL) /* they lie apart: all are on their way before the first is waited for */
                for (size_t k = 0; k < count; k++)
                    for (size_t byte = 0; byte < code_bytes; byte += LINE_BYTES)
                        __builtin_prefetch(its_codes + code_bytes * picks[k] + byte);
            if (!ready) {
                prepare(query, codes->centroids + dimension * (size_t)near[n], codes->squares[near[n]], dimension,
                        sum_up == sum_by_planes, &left);
                ready = 1;
            }
            sum_up(&left, dimension, its_codes, code_bytes, count, picks, sums);
            for (size_t k = 0; k < count; k++) {
                const int64_t slot = ids[picks[k]];
                float factors[2]; /* the residual's square; its length over what the code has of it */
                float along, across, square = 1;

                if (of->squares != NULL && (uint64_t)slot >= of->squares_count)
                    continue;
                if (of->squares != NULL)
                    square = of->squares[slot];
                memcpy(factors, its_codes + code_bytes * picks[k] + bits_bytes, sizeof factors);
                along = left.product + left.share * (square - left.square - factors[0]) / 2;
                across = factors[1] * scale * left.step * (float)(2 * sums[k] - left.sum);
                offer(best, of->squares == NULL ? (along + across) * unit : along + across - square / 2, slot);
            }
        }
        if ((since += size) > CODES_A_LOOK) {
            since = 0;
            in_time = !is_over(of);
        }
    }
    OPENSSL_cleanse(&left, sizeof left);
    return in_time;
}

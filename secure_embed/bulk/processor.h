/* The widest registers that the processor has are found out when the library is loaded (GNU indirect functions, which run
 * before a sanitizer is ready). */
#if defined(__x86_64__) && defined(__GNUC__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { LANES = 32, DIMENSION_MAX = 4096 };

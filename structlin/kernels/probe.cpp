// Does the compiler here make a kernel that loads? What every kernel includes, and nothing else.
#include "functions.hpp"
#include "tiles.hpp"

extern "C" long structlin_probe() { return 1; }

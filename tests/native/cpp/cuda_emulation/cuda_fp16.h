#pragma once

__extension__ typedef _Float16 __half;
